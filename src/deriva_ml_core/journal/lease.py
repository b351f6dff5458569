"""Which process runs an execution, and whether it still lives."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from deriva_ml_core.models import Value

__all__ = ["Lease"]

CLOCK_SLACK = 10.0
"""Seconds by which a process's start may seem to move when the machine's clock is set."""


class Lease(Value):
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
    def taken(cls) -> Lease:
        """The lease of the present process."""
        import psutil

        return cls(
            host=platform.node(),
            boot=psutil.boot_time(),
            pid=os.getpid(),
            namespace=_namespace(),
            started=psutil.Process().create_time(),
        )

    def is_dead(self) -> bool | None:
        """Whether the process has ended; None where that cannot be known from here."""
        import psutil

        if self.host != platform.node() or self.namespace != _namespace():
            return None
        if abs(self.boot - psutil.boot_time()) > CLOCK_SLACK:
            return True
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > CLOCK_SLACK
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return None


def _namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if link.exists() else ""
