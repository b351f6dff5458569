"""Runs programs on a pseudo-terminal, as a person would see them."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

MAX_SILENCE = 120.0
"""Seconds without output, or without an awaited condition, after which a program counts as hanging."""


class TerminalProgram:
    """A program whose standard streams are a pseudo-terminal of its own.

    Args:
        command: The program and its arguments.
        cwd: The working directory.
        env: Environment variables, added to those of this process.
        streams: The descriptors that are the terminal.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        streams: Sequence[int] = (0, 1, 2),
    ) -> None:
        self._master, slave = pty.openpty()
        self._output = b""
        chosen = {("stdin", "stdout", "stderr")[number]: slave for number in streams}
        files = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | chosen
        self.process = subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            **files,  # type: ignore[arg-type]
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """What the terminal shows so far, with its line breaks as in the program."""
        return self._output.decode("utf-8", "replace").replace("\r\n", "\n")

    def read_until(self, condition: Callable[[str], bool]) -> str:
        """Read the terminal until its text meets a condition."""
        deadline = monotonic() + MAX_SILENCE
        while not condition(self.text):
            if self._read(0.05):
                deadline = monotonic() + MAX_SILENCE
            assert monotonic() < deadline, f"the terminal shows only: {self.text[-2000:]}"
        return self.text

    def wait(self) -> int:
        """Read the terminal until the program ends and nothing more comes; return its exit status."""
        deadline = monotonic() + MAX_SILENCE
        while self.process.poll() is None:
            if self._read(0.05):
                deadline = monotonic() + MAX_SILENCE
            if monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise AssertionError(f"the program hangs; the terminal shows: {self.text[-2000:]}")
        while self._read(0.5):
            pass
        return self.process.returncode

    def close(self) -> None:
        """Kill what is left of the program and close the terminal."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # no process has the terminal any more
            return False
        self._output += data
        return bool(data)


def run_in_terminal(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    streams: Sequence[int] = (0, 1, 2),
) -> tuple[int, str]:
    """Run a program on a pseudo-terminal; return its exit status and what the terminal shows."""
    program = TerminalProgram(command, cwd=cwd, env=env, streams=streams)
    try:
        return program.wait(), program.text
    finally:
        program.close()
