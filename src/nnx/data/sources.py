"""Files as streams of bytes that can be read again, in an encoding; messages that say what is wrong with them."""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, NoReturn

from nnx._base import check
from nnx._base.printing import progress_bar
from nnx._base.text import abridged
from nnx.errors import DataFileError

UTF8 = "utf-8-sig"
#: Files of fewer bytes are read before a bar says much.
LEAST_SHOWN = 20_000_000
#: Files that begin so are in UTF-16, and in no other encoding that is in use.
MARKS_OF_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Source:
    """A file, given by its name or open for reading, whose bytes can be read from the start several times.

    What is open, or is no regular file, is read once and kept.

    Attributes
    ----------
    where, name : str
        The function that errors name, and the file.
    size : int
        In bytes.
    """

    def __init__(self, where: str, file: Any, encoding: str | None = None, progress: bool = False) -> None:
        self.where, self._encoding, self._progress = where, encoding, progress
        if encoding is not None:
            _check_encoding(where, encoding)
        self._path: Any = None
        self._content: bytes | None = None
        self._errors = "strict"
        if hasattr(file, "read"):
            name = getattr(file, "name", None)
            self.name = (
                {"<stdin>": "standard input"}.get(name, repr(name)) if isinstance(name, str) else "the open file"
            )
            self._keep(file)
        elif isinstance(file, str | os.PathLike | bytes):
            self.name, self._path = repr(check.path(where, "path", file)), file
            self._find()
        else:
            raise TypeError(f"{where}: path must be the name of a file or folder, got {abridged(file)}.")

    def _keep(self, file: IO[Any]) -> None:
        try:
            content = file.read()
        except UnicodeError:
            self.refuse_encoding()
        if isinstance(content, str):
            self._encoding, self._errors = UTF8, "surrogatepass"  # text may hold what UTF-8 cannot
            content = content.encode("utf-8", self._errors)
        self._content = bytes(content)
        self.size = len(self._content)

    def _find(self) -> None:
        with self._open() as opened:
            found = os.fstat(opened.fileno())
            self._version = found.st_size, found.st_mtime_ns
            self.size = found.st_size
            if not stat.S_ISREG(found.st_mode):  # a pipe gives its bytes only once
                self._keep(opened)

    def _open(self) -> BinaryIO:
        try:
            return open(self._path, "rb")
        except IsADirectoryError:
            raise IsADirectoryError(f"{self.where}: {self.name} is a folder, not a CSV file.") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG or (error.errno == errno.ENOENT and "\n" in os.fsdecode(self._path)):
                raise ValueError(
                    f"{self.where}: path must be a file's name, got {abridged(self._path)}. "
                    "Wrap a table's text in io.StringIO(...)."
                ) from None
            if error.errno == errno.ENOENT:
                raise FileNotFoundError(f"{self.where}: there is no file {self.name}.") from None
            raise

    def stream(self) -> BinaryIO:
        """Return the bytes from the start; a file that is not what it was when first read is refused."""
        if self._content is not None:
            return io.BytesIO(self._content)
        opened = self._open()
        found = os.fstat(opened.fileno())
        if (found.st_size, found.st_mtime_ns) != self._version:
            opened.close()
            self.refuse("has changed while it was read")
        return opened

    def begins_with(self, *marks: bytes) -> bool:
        """Return whether the first bytes are one of some marks."""
        with self.stream() as stream:
            return stream.read(max(map(len, marks))).startswith(marks)

    def text_blocks(self, size: int, *, shown: bool = False) -> Iterator[bytes]:
        """Yield the text in UTF-8, in blocks of about a size; bytes that are said to be UTF-8 are not looked at.

        A bar shows how much has been read if the source shall have one and ``shown``.
        """
        encoding = self._encoding or ("utf-16" if self.begins_with(*MARKS_OF_UTF16) else UTF8)
        decoder = None if is_utf8(encoding) else codecs.getincrementaldecoder(encoding)()
        bar = progress_bar(self.size, 0, "B") if shown and self._progress and self.size >= LEAST_SHOWN else None
        try:
            with self.stream() as stream:
                first = True
                while block := stream.read(size):
                    if bar is not None:
                        bar.update(len(block))
                    if decoder is not None:
                        block = decoder.decode(block).encode("utf-8", "surrogatepass")
                    yield block.removeprefix(codecs.BOM_UTF8) if first else block
                    first = False
                if decoder is not None:
                    yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")
        except UnicodeError:
            self.refuse_encoding()
        finally:
            if bar is not None:
                bar.close()

    def text(self, content: bytes) -> str:
        """Return bytes of `text_blocks`, cut between characters, as text."""
        try:
            return str(content, "utf-8", self._errors)
        except UnicodeError:
            self.refuse_encoding()

    def refuse_encoding(self) -> NoReturn:
        """Say that the file is in another encoding, and which argument names it."""
        if self._encoding is None or is_utf8(self._encoding):
            self.refuse("is not text in UTF-8. Name its encoding, such as encoding='latin-1' (--encoding latin-1)")
        self.refuse(f"is not text in {self._encoding}. Name another encoding, or none for UTF-8")

    def refuse(self, reason: str, place: str = "") -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        raise DataFileError(f"{self.where}: {self.name}{place} {reason}.")


def is_utf8(encoding: str) -> bool:
    """Return whether an encoding is UTF-8, with a byte order mark or without."""
    return codecs.lookup(encoding).name in ("utf-8", UTF8)


def _check_encoding(where: str, encoding: Any) -> None:
    check.text(where, "encoding", encoding)
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise ValueError(
            f"{where}: encoding must be one that Python knows, such as 'utf-8', 'latin-1' or 'utf-16', "
            f"got {abridged(encoding)}."
        ) from None
