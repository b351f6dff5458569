"""Processes of engines, which end with the process of the tests."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["EngineFailed", "free_ports", "running"]

PR_SET_PDEATHSIG = 1
MAX_STARTS = 3
"""How often an engine is started: another process may take one of its free ports meanwhile."""


class EngineFailed(Exception):
    """An engine did not start."""


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def running(command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run an engine while the block runs.

    Args:
        command: The command line.
        port: The port that the engine listens on once it has started.
        log: File for its output.
        environment: All its environment variables.
    """
    libc = ctypes.CDLL(None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        try:
            while not _listens(port):
                if process.poll() is not None:
                    raise EngineFailed(log.read_text(errors="replace")[-2000:])
                time.sleep(0.05)
            yield
        finally:
            process.kill()  # its files are temporary
            process.wait()


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
