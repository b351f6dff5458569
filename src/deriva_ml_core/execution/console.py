"""Records the console output of a run: its descriptors 1 and 2 point at a file, which another process copies back.

The run only appends to a file. It neither waits for the process that copies (`console_copy`), nor depends on it: that
process may be stopped or killed, and the run may be killed. No thread is needed.

In the kernel of a notebook, where output does not go through the descriptors, the text that Python code prints is
written to the file too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deriva_ml_core._progress import COPIED_ATTRIBUTE, is_kernel, is_terminal
from deriva_ml_core.execution import console_copy
from deriva_ml_core.execution.console_text import CONSOLE_FILES, RAW_SUFFIX

__all__ = ["Console"]

log = logging.getLogger(__name__)

MAX_SILENCE = 2.0
"""Seconds to wait for a sign of life of the process that copies, at the end of a run."""

JOIN_SECONDS = 2.0
"""Seconds that another rank waits for the file of rank 0."""

TARGETS_FILE = "console.json"
"""File by which the other ranks of a training recognise the terminal of rank 0."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
"""Errors of a write after which the run prints to its terminal again."""

_STREAMS = {1: "stdout", 2: "stderr"}


class Console:
    """The console output of one run in this process.

    Args:
        records: Folder for the files.
    """

    def __init__(self, records: Path) -> None:
        self._records = records
        self._raw: dict[int, int] = {}
        """Descriptors of the files, by those that point at them."""
        self._saved: dict[int, int] = {}
        """Duplicates of the original descriptors."""
        self._guards: list[_StreamGuard] = []
        self._control: socket.socket | None = None
        self._pid = 0

    def begin(self) -> None:
        """Point the descriptors at the files and start the process that copies; log a warning if that fails."""
        self._pid = os.getpid()
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            if is_kernel():
                self._tee()
            else:
                self._capture()
        except Exception as error:  # noqa: BLE001 - a run does not depend on its console output
            self._undo()
            log.warning("The console output of the run is not recorded: %s", error)

    def join(self) -> None:
        """Point the descriptors at the files of rank 0, if they are on this machine and its terminal is this one."""
        self._pid = os.getpid()
        try:
            targets = self._await_targets()
            for number in (1, 2):
                name = targets.get(_describe_target(number))
                if name is not None:
                    self._redirect(number, _open_raw(self._records / f"{name}{RAW_SUFFIX}"))
        except Exception as error:  # noqa: BLE001 - a run does not depend on its console output
            self._undo()
            log.warning("The console output of a rank is not recorded: %s", error)

    def end(self, error: BaseException | None) -> None:
        """Restore the descriptors, wait until all output is on the terminal, and add the traceback to the file.

        Args:
            error: The exception that ends the run; the interpreter prints it after the run.
        """
        if self._pid != os.getpid():  # a forked child
            return
        self._pid = 0
        with suppress(Exception):
            _flush_streams()
            if all(map(self._is_current, self._raw)):
                self._restore()
                self._await_copy()
            # else a run that began later still uses the descriptors: the copying continues until the process ends
        with suppress(Exception):
            if error is not None and not isinstance(error, SystemExit) and self._raw:
                text = "".join(traceback.format_exception(error))
                os.write(self._raw.get(2, next(iter(self._raw.values()))), text.encode("utf-8", "backslashreplace"))
        self._close()

    def _capture(self) -> None:
        targets = {number: target for number in (1, 2) if (target := _describe_target(number))}
        if not targets:  # both are closed
            return
        names = dict(zip(dict.fromkeys(targets.values()), CONSOLE_FILES, strict=False))
        files = {name: _open_raw(self._records / f"{name}{RAW_SUFFIX}") for name in names.values()}
        try:
            pairs = {}
            for number, target in targets.items():
                self._saved[number] = os.dup(number)
                pairs[names[target]] = self._saved[number]
            sources = {name: os.open(self._records / f"{name}{RAW_SUFFIX}", os.O_RDWR) for name in names.values()}
            try:
                self._control = _start_copy({sources[name]: target for name, target in pairs.items()})
            finally:
                for descriptor in sources.values():
                    os.close(descriptor)
            (self._records / TARGETS_FILE).write_text(json.dumps(names), encoding="utf-8")
            _flush_streams()
            for number, target in targets.items():
                self._redirect(number, os.dup(files[names[target]]))
        finally:
            for descriptor in files.values():
                os.close(descriptor)

    def _redirect(self, number: int, raw: int) -> None:
        """Point a descriptor at an open file."""
        self._raw[number] = raw
        if number not in self._saved:
            self._saved[number] = os.dup(number)
        stream = getattr(sys, _STREAMS[number])
        with suppress(Exception):
            if stream is not None and stream.fileno() == number:
                is_shown = is_terminal(stream) or getattr(stream, COPIED_ATTRIBUTE, False)
                self._guards.append(_StreamGuard(stream, self._give_up, is_shown=is_shown))
        os.dup2(raw, number)

    def _tee(self) -> None:
        raw = _open_raw(self._records / f"{CONSOLE_FILES[0]}{RAW_SUFFIX}")
        self._raw[1] = raw

        def copy(text: str) -> None:
            if self._pid == os.getpid():
                with suppress(Exception):  # a full disk
                    os.write(raw, text.encode("utf-8", "backslashreplace"))

        self._guards += [_StreamTee(getattr(sys, name), copy) for name in _STREAMS.values()]

    def _give_up(self, error: OSError) -> bool:
        """Print to the terminal again after a failed write; return whether the file was the cause."""
        if error.errno not in FULL_DISK or not any(map(self._is_current, self._raw)):
            return False
        self._restore()
        if self._pid == os.getpid():
            log.warning("The console output of the run is no longer recorded: %s", error)
        return True

    def _is_current(self, number: int) -> bool:
        """Whether a descriptor points at the file, and no later run has pointed it elsewhere."""
        if number not in self._saved:  # the text of a kernel
            return True
        try:
            return os.path.sameopenfile(number, self._raw[number])
        except OSError:
            return False

    def _restore(self) -> None:
        for number, saved in self._saved.items():
            if number in self._raw and self._is_current(number):
                os.dup2(saved, number)

    def _undo(self) -> None:
        with suppress(Exception):
            self._restore()
        self._close()

    def _await_copy(self) -> None:
        """Wait until the rest of the output is on the terminal, as long as the other process shows signs of life."""
        if self._control is None:
            return
        self._control.send(console_copy.END_REQUEST, socket.MSG_DONTWAIT)
        while select.select([self._control], [], [], MAX_SILENCE)[0]:
            if (message := self._control.recv(4096)) == b"" or message.endswith(console_copy.COPIED):
                return
        log.warning("The terminal does not show the last output of the run, which is recorded.")

    def _await_targets(self) -> dict[str, str]:
        deadline = time.monotonic() + JOIN_SECONDS
        path = self._records / TARGETS_FILE
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _close(self) -> None:
        for guard in self._guards:
            guard.remove()
        for descriptor in (*self._raw.values(), *self._saved.values()):
            with suppress(OSError):
                os.close(descriptor)
        if self._control is not None:
            self._control.close()
        self._guards, self._raw, self._saved, self._control = [], {}, {}, None


class _StreamGuard:
    """Lets `print` go on if the file of a stream cannot be written, as on a full disk.

    Args:
        stream: The stream, whose methods are replaced.
        on_error: Called with the error; returns whether it was corrected.
        is_shown: Whether a terminal shows what is written.
    """

    def __init__(self, stream: Any, on_error: Callable[[OSError], bool], *, is_shown: bool = False) -> None:
        self._stream = stream
        self._on_error = on_error
        self._originals = {name: getattr(stream, name) for name in ("write", "flush")}
        self._own: dict[str, object] = {"write": self.write, "flush": self.flush, COPIED_ATTRIBUTE: is_shown}
        self._previous = {name: vars(stream)[name] for name in self._own if name in vars(stream)}
        for name, value in self._own.items():
            setattr(stream, name, value)

    def write(self, text: str) -> int:
        """Write text to the stream."""
        try:
            return self._originals["write"](text)  # type: ignore[no-any-return]
        except OSError as error:
            if not self._on_error(error):
                raise
            self.flush()
            return len(text)

    def flush(self) -> None:
        """Write what the stream has buffered."""
        try:
            self._originals["flush"]()
        except OSError as error:
            if not self._on_error(error):
                raise
            with suppress(OSError):
                self._originals["flush"]()

    def remove(self) -> None:
        """Restore the methods, unless others replaced them meanwhile."""
        for name, value in self._own.items():
            with suppress(Exception):
                if vars(self._stream).get(name) != value:
                    continue
                if name in self._previous:
                    setattr(self._stream, name, self._previous[name])
                else:
                    delattr(self._stream, name)


class _StreamTee(_StreamGuard):
    """Passes the text of a stream on.

    Args:
        stream: The stream, whose methods are replaced.
        copy: Called with each text after the stream has it.
    """

    def __init__(self, stream: Any, copy: Callable[[str], None]) -> None:
        self._copy = copy
        super().__init__(stream, lambda _: False)

    def write(self, text: str) -> int:
        """Write text to the stream and pass it on."""
        written = super().write(text)
        self._copy(text)
        return written


def _open_raw(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _describe_target(number: int) -> str:
    """Return what a standard stream points at; empty if it is closed, as its descriptor may be that of another file."""
    stream = getattr(sys, f"__{_STREAMS[number]}__")
    try:
        if stream is None or stream.fileno() != number:
            return ""
        stat = os.fstat(number)
    except (OSError, ValueError):
        return ""
    return f"{stat.st_dev} {stat.st_ino} {stat.st_rdev}"


def _start_copy(pairs: dict[int, int]) -> socket.socket:
    """Start the process that copies files to streams, and return the socket to it."""
    own, other = socket.socketpair()
    try:
        arguments = [str(os.getpid()), str(other.fileno()), *(f"{source}:{target}" for source, target in pairs.items())]
        command = [sys.executable, "-I", "-S", console_copy.__file__, *arguments]
        passed = (other.fileno(), *pairs, *pairs.values())
        # its first process ends at once, so that the run has no child that it does not know
        starter = subprocess.Popen(  # noqa: S603 - a file of this package, by this interpreter
            command, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    finally:
        other.close()
    code = starter.wait()
    if code != 0:
        own.close()
        raise OSError(f"the process that copies it to the terminal ended with status {code}")
    return own


def _flush_streams() -> None:
    """Write what Python and the C library have buffered for the standard streams."""
    for name in _STREAMS.values():
        with suppress(Exception):
            getattr(sys, name).flush()
    with suppress(Exception):
        import ctypes

        library = ctypes.CDLL(None)
        for name in _STREAMS.values():
            symbol = name if sys.platform != "darwin" else f"__{name}p"
            library.fflush(ctypes.c_void_p.in_dll(library, symbol))
