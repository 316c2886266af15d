"""How much memory this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

#: The files in which Linux says how much the processes of a container may use together.
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: The memory to assume if it is unknown.
UNKNOWN = 4 << 30


def allowed() -> int:
    """Return how many bytes this process may use, by machine, container and limits of the process."""
    found = [_physical(), *_of_cgroup(), *_of_process()]
    return min(found)


def _physical() -> int:
    if sys.platform == "win32":
        return _physical_on_windows()
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return UNKNOWN
    return pages * size if pages > 0 and size > 0 else UNKNOWN


def _physical_on_windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = (
            *(("length", ctypes.c_uint32), ("load", ctypes.c_uint32)),
            *((f"bytes_{number}", ctypes.c_uint64) for number in range(7)),  # the first: all physical memory
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    return int(status.bytes_0) if kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else UNKNOWN


def _of_cgroup() -> list[int]:
    found = []
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            found.append(int(file.read()))  # "max" is no number
    return [limit for limit in found if limit > 0]


def _of_process() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return [limit for limit in limits if limit != resource.RLIM_INFINITY and limit > 0]
