"""Files written whole or not at all, and the messages about files that cannot be read or written."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from nnx._base.typing import Path
from nnx.errors import ModelFileError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

#: The end of a temporary file's name.
LEFTOVER = re.compile(r"[0-9a-f]{16}\.tmp")


def refuse(where: str, path: Path, reason: str, advice: str = "") -> NoReturn:
    """Raise the error that says what is wrong with a file; ``advice`` is its last sentence."""
    raise ModelFileError(f"{where}: {os.fspath(path)!r} {printable(reason)}.{advice}")


def printable(text: str, most: int = 1000) -> str:
    """Return text that may come from a file as one line that a terminal can show."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:most])
    return shown if len(text) <= most else f"{shown} ..."


# Writing


def writable(where: str, path: Path, name: str = "path") -> str:
    """Return the path that a file for ``path``, the argument ``name``, is written to. Refuse impossible paths."""
    given = os.fspath(path)
    target = os.path.realpath(given)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{where}: {name} must be in an existing folder, got {given!r}.")
    if not os.path.basename(given) or (os.path.exists(target) and not os.path.isfile(target)):
        raise IsADirectoryError(f"{where}: {name} must name a file, got {given!r}.")
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(f"{where}: {name} must name a possible file, got {given!r} ({error.strerror}).") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{where}: {name} must be in a folder that you may write to, got {given!r}.")
    return target


@contextlib.contextmanager
def replacing(where: str, path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends well. An error leaves no trace of it.

    A reader finds the old file or the whole new one, even after a crash.
    """
    target = writable(where, path)
    folder = os.path.dirname(target)
    temporary = f"{_temporary_prefix(target)}{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove the files that killed writers of ``path`` left. Files that are being written are locked."""
    folder, prefix = os.path.split(_temporary_prefix(os.path.realpath(os.fspath(path))))
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix) and LEFTOVER.fullmatch(name[len(prefix) :]):
                leftover = os.path.join(folder, name)
                with open(leftover, "rb") as file:
                    _lock(file)
                    os.remove(leftover)


def _lock(file: BinaryIO) -> None:
    """Keep others from removing a file until it is closed. OSError if another has it. Windows does this itself."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _temporary_prefix(target: str) -> str:
    """Return the beginning of the names of temporary files for ``target``. They are short, whatever its name."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".nnx-{zlib.crc32(os.fsencode(name)):08x}-")
