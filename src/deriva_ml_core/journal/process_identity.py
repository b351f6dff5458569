"""Which process runs an execution, and whether it still lives."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from deriva_ml_core.models import FrozenModel

__all__ = ["ProcessIdentity"]

CLOCK_TOLERANCE = 10.0
"""Seconds by which a process's start may seem to move when the machine's clock is set."""


class ProcessIdentity(FrozenModel):
    """A process on a machine.

    Args:
        host: The machine's name.
        boot: Since when the machine runs, in seconds since 1970.
        pid: The process's number.
        namespace: The space in which the number counts; two containers on one machine have two.
        started: When the process started, in seconds since 1970.
    """

    host: str
    boot: float
    pid: int
    namespace: str = ""
    started: float

    @classmethod
    def current(cls) -> ProcessIdentity:
        """The lease of the present process."""
        import psutil

        return cls(
            host=platform.node(),
            boot=psutil.boot_time(),
            pid=os.getpid(),
            namespace=_pid_namespace(),
            started=psutil.Process().create_time(),
        )

    def is_dead(self) -> bool | None:
        """Whether the process has ended; None where that cannot be known from here."""
        import psutil

        if self.host != platform.node() or self.namespace != _pid_namespace():
            return None
        if abs(self.boot - psutil.boot_time()) > CLOCK_TOLERANCE:
            return True
        try:
            process = psutil.Process(self.pid)
            return (
                process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > CLOCK_TOLERANCE
            )
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return None


def _pid_namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if link.exists() else ""
