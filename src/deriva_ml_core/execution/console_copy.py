"""The program that copies the console output of a run from its files to the terminal, in a process of its own.

The run writes to files and never waits for this program: it may be killed or stopped. It uses the standard library
only, and is run as a file, so that it starts in milliseconds and shares nothing with the run.

Arguments: the id of the run's process, the descriptor of a socket to the run, and for each file the descriptors of the
file and of the stream to copy it to, as ``3:4``. The run sends ``E`` when it ends. The program then copies the rest,
sends ``.`` for each part and ``D`` at the end.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import Any

__all__ = ["END_REQUEST", "KEPT_BYTES", "COPIED", "main"]

END_REQUEST, COPIED, PROGRESS = b"E", b"D", b"."
"""Messages between the run and this program."""

CHUNK_BYTES = 64 * 1024
IDLE_SECONDS = 0.04
"""Seconds between two looks at files that do not grow."""

QUIET_SECONDS = 1.0
"""Seconds without output after which the program ends, once the run's process has; its children may still print."""

KEPT_BYTES = 16 * 2**20
"""Bytes at the begin and at the end of a file that are never released."""

RELEASE_BYTES = 8 * 2**20
"""Bytes in between that are released at once, so that a long run does not fill the disk."""


class _Copy:
    """Copy of one file to one stream.

    Args:
        source: Descriptor of the file.
        target: Descriptor of the stream.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._position = os.fstat(source).st_size  # what an earlier part of the run wrote was shown then
        self._released = KEPT_BYTES
        self._is_lost = False
        """Whether the stream is gone, as when a terminal is closed."""

    def copy(self) -> bool:
        """Copy the next part; return whether there was one."""
        data = os.pread(self._source, CHUNK_BYTES, self._position)
        has_data = bool(data)
        self._position += len(data)
        try:
            while data and not self._is_lost:
                try:
                    data = data[os.write(self._target, data) :]
                except BlockingIOError:  # the program that shares the stream made it so
                    select.select([], [self._target], [], QUIET_SECONDS)
        except OSError:
            self._is_lost = True
        if self._position - KEPT_BYTES - self._released > RELEASE_BYTES:
            self._release(self._position - KEPT_BYTES)
        return has_data

    def _release(self, end: int) -> None:
        """Give the blocks in the middle of the file back to the file system, if it can do that."""
        import ctypes

        with suppress(Exception):  # Linux only; the file is only larger on disk without it
            fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
            fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            keep_size, punch_hole = 1, 2  # linux/falloc.h
            fallocate(self._source, keep_size | punch_hole, self._released, end - self._released)
        self._released = end


class _Run:
    """The process of the run, and the socket to it.

    Args:
        pid: Id of the process.
        control: The socket.
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        self._pid = pid
        self._control = control
        self._pidfd: int | None = None
        self.has_asked_to_end = False
        self.is_dead = False
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.is_dead = True
        except (AttributeError, OSError):  # not Linux, or an older kernel
            pass

    def wait(self, seconds: float) -> None:
        """Wait for a message of the run or for its death."""
        watched: list[Any] = [self._control, *([] if self._pidfd is None else [self._pidfd])]
        readable = select.select([] if self.is_dead else watched, [], [], seconds)[0]
        if self._control in readable:
            message = self._receive()
            self.has_asked_to_end = message == END_REQUEST
            self.is_dead = not message
        if self._pidfd is not None:
            self.is_dead = self.is_dead or self._pidfd in readable
        else:
            self.is_dead = self.is_dead or not _exists(self._pid)

    def send(self, message: bytes) -> None:
        """Send a message to the run, if it has not ended."""
        with suppress(OSError):
            self._control.send(message, socket.MSG_DONTWAIT)

    def _receive(self) -> bytes:
        try:
            return self._control.recv(1)
        except OSError:
            return b""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def main(arguments: list[str]) -> None:
    """Copy until the run asks to end, or has ended and nothing more comes."""
    pid, control, *pairs = arguments
    copies = [_Copy(*map(int, pair.split(":"))) for pair in pairs]  # from here on, the run may print
    if os.fork():  # the run has no child that it does not know, and Ctrl-C in the terminal ends the run only
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    run = _Run(int(pid), socket.socket(fileno=int(control)))
    run.send(PROGRESS)
    last_output = monotonic()
    while True:
        has_copied = True in [copy.copy() for copy in copies]
        if has_copied:
            last_output = monotonic()
        if run.has_asked_to_end:
            run.send(PROGRESS if has_copied else COPIED)
            if not has_copied:
                return
        elif run.is_dead and monotonic() - last_output > QUIET_SECONDS:
            return
        run.wait(0 if has_copied else IDLE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
