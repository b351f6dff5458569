"""Faults of file calls: the n-th call on a path below a folder fails, writes half, or kills the process.

Two layers count the same calls. `PythonLayer` replaces functions of `os` and `io` before the package is imported, and
works on every system. `SharedLibraryLayer` is ``file_faults.c``, which is loaded before libc and sees SQLite's calls
too; it needs a C compiler.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import functools
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

__all__ = ["KINDS", "NO_COMPILER", "Layer", "PythonLayer", "SharedLibraryLayer", "compile_library"]

WRITE, CREATE, OTHER = 1, 2, 4
"""Categories of calls: those that write bytes, those that can need space on the disk otherwise, and the rest."""

KINDS = {
    "none": 0,  # only count
    "ENOSPC": WRITE | CREATE,
    "full": WRITE | CREATE,  # this call and all later ones fail with ENOSPC, until the fault is disarmed
    "EIO": WRITE | CREATE | OTHER,
    "short": WRITE,  # half of the bytes are written, and the call succeeds
    "kill": WRITE | CREATE | OTHER,
}
"""Kinds of faults, and the categories of calls that each concerns."""

NO_COMPILER = "there is no C compiler (cc) for the layer that sees SQLite's calls"


class Layer(Protocol):
    """A layer below which calls are counted and one of them fails."""

    def arm(self, kind: str, number: int, path: str = "") -> None:
        """Count from 1 again, and let a call fail; number 0 only counts.

        Args:
            kind: One of `KINDS`.
            number: The number of the call among those that the kind concerns.
            path: A part of the paths that count; empty for all.
        """

    def disarm(self) -> dict[int, int]:
        """Let all calls succeed; returns the number of calls by category."""

    @property
    def hit(self) -> str:
        """The call that failed and its path; empty if none did."""


class PythonLayer:
    """Replaces functions of `os` and `io` in this process.

    Args:
        folder: Only calls on paths below this folder are counted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self._kind, self._number, self._taken, self._path = "none", 0, 0, ""
        self._is_armed = False
        self._counts = {WRITE: 0, CREATE: 0, OTHER: 0}
        self.hit = ""
        self._install()

    def arm(self, kind: str, number: int, path: str = "") -> None:
        self._kind, self._number, self._taken, self.hit, self._path = kind, number, 0, "", path
        self._counts = {WRITE: 0, CREATE: 0, OTHER: 0}
        self._is_armed = True

    def disarm(self) -> dict[int, int]:
        self._is_armed = False
        return self._counts

    def take(self, call: str, category: int, path: str) -> bool:
        """Count a call; returns whether it is to write only half.

        Raises:
            OSError: The call is the one to fail.
        """
        if not (self._is_armed and path.startswith(self._folder) and self._path in path):
            return False
        self._counts[category] += 1
        if not category & KINDS[self._kind] or not self._number:
            return False
        self._taken += 1
        if self._taken < self._number or (self._taken > self._number and self._kind != "full"):
            return False
        self.hit = self.hit or f"{call} {path}"
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "short":
            return True
        number = errno.EIO if self._kind == "EIO" else errno.ENOSPC
        raise OSError(number, os.strerror(number), path)

    def opens(self, path: Any) -> bool:
        """Whether a path is below the folder while the layer is armed."""
        return self._is_armed and _absolute_path(path).startswith(self._folder)

    def _install(self) -> None:
        for name, category in (("mkdir", CREATE), ("unlink", OTHER), ("remove", OTHER), ("rmdir", OTHER)):
            self._replace(name, category)
        for name in ("fsync", "fdatasync", "ftruncate", "truncate"):
            self._replace(name, CREATE)
        self._replace("chmod", OTHER)
        for name in ("rename", "replace", "link", "symlink"):
            self._replace(name, CREATE, argument=1)
        os_open, layer = os.open, self

        @functools.wraps(os_open)
        def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            layer.take("open", CREATE if flags & os.O_CREAT else OTHER, _absolute_path(path, dir_fd))
            return os_open(path, flags, mode, dir_fd=dir_fd)

        os.open = open_descriptor
        for name in ("write", "pwrite"):
            self._replace_write(name)
        self._replace_sendfile()
        _replace_open(self)

    def _replace(self, name: str, category: int, argument: int = 0) -> None:
        call, layer = getattr(os, name), self

        @functools.wraps(call)
        def replaced(*arguments: Any, **named: Any) -> Any:
            directory = named.get("dir_fd", named.get("dst_dir_fd"))
            layer.take(name, category, _absolute_path(arguments[argument], directory))
            return call(*arguments, **named)

        setattr(os, name, replaced)
        for group in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if call in group:
                group.add(replaced)

    def _replace_write(self, name: str) -> None:
        call, layer = getattr(os, name), self

        @functools.wraps(call)
        def write(descriptor: int, data: Any, *offset: int) -> int:
            is_short = layer.take(name, WRITE, _absolute_path(descriptor))
            return int(call(descriptor, _half(data) if is_short else data, *offset))

        setattr(os, name, write)

    def _replace_sendfile(self) -> None:
        call, layer = os.sendfile, self

        @functools.wraps(call)
        def sendfile(target: int, source: int, offset: int | None, count: int) -> int:
            is_short = layer.take("sendfile", WRITE, _absolute_path(target))
            return call(target, source, offset, 1 if is_short else count)

        os.sendfile = sendfile


def _absolute_path(path: Any, directory: int | None = None) -> str:
    if isinstance(path, int):
        try:
            return os.readlink(f"/proc/self/fd/{path}")
        except OSError:
            return ""
    text = os.fsdecode(path)
    if text.startswith("/"):
        return text
    return f"{os.getcwd() if directory is None else _absolute_path(directory)}/{text}"


def _half(data: Any) -> memoryview:
    view = memoryview(data).cast("B")
    return view[: max(1, len(view) // 2)]


def _replace_open(layer: PythonLayer) -> None:
    """Replace `open` and `io.FileIO`, whose calls of the operating system do not go through `os`."""
    real_open, real_file = io.open, io.FileIO

    class FileIO(real_file):  # type: ignore[misc, valid-type]
        """A file whose opening and writing can fail."""

        def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
            layer.take("open", CREATE if set(mode) & set("wxa") else OTHER, _absolute_path(file))
            super().__init__(file, mode, closefd, opener)

        def write(self, data: Any) -> int:
            is_short = layer.take("write", WRITE, _absolute_path(self.fileno()))
            return int(super().write(_half(data) if is_short else data))

        def truncate(self, size: int | None = None) -> int:
            layer.take("ftruncate", CREATE, _absolute_path(self.fileno()))
            return int(super().truncate(size))

    @functools.wraps(real_open)
    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> Any:
        if not layer.opens(file):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = FileIO(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered: Any = (
            io.BufferedRandom(raw) if "+" in mode else io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
        )
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    io.FileIO = FileIO  # type: ignore[misc]
    io.open = builtins.open = open_file  # type: ignore[assignment]


class SharedLibraryLayer:
    """The library ``file_faults.c`` in a process that was started with it in ``LD_PRELOAD``.

    Args:
        folder: Only calls on paths below this folder are counted.
    """

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_hit.restype = ctypes.c_char_p
        self._library.fault_set_folder(os.fsencode(f"{folder}/"))

    def arm(self, kind: str, number: int, path: str = "") -> None:
        self._library.fault_arm(list(KINDS).index(kind), KINDS[kind], number, os.fsencode(path))

    def disarm(self) -> dict[int, int]:
        counts = (ctypes.c_long * 5)()
        self._library.fault_disarm(counts)
        return {category: counts[category] for category in (WRITE, CREATE, OTHER)}

    @property
    def hit(self) -> str:
        return os.fsdecode(self._library.fault_hit())


def compile_library(folder: Path) -> Path | None:
    """Compile ``file_faults.c`` into a folder; None if there is no C compiler."""
    if (compiler := shutil.which("cc")) is None:
        return None
    library = folder / "file_faults.so"
    source = Path(__file__).with_name("file_faults.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library
