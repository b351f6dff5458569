"""Identifies the process that runs an execution and determines whether it is alive."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from deriva_ml_core.models import FrozenModel

__all__ = ["ProcessIdentity"]

CLOCK_TOLERANCE = 10.0
"""Seconds by which the start time of a process can shift when the machine's clock is adjusted."""


class ProcessIdentity(FrozenModel):
    """A process on a machine.

    Args:
        host: Host name of the machine.
        boot: Boot time of the machine, in seconds since 1970.
        pid: Process id.
        namespace: PID namespace of the id; containers on one machine have different ones.
        started: Start time of the process, in seconds since 1970.
    """

    host: str
    boot: float
    pid: int
    namespace: str = ""
    started: float

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return the identity of the current process."""
        import psutil

        return cls(
            host=platform.node(),
            boot=psutil.boot_time(),
            pid=os.getpid(),
            namespace=_pid_namespace(),
            started=psutil.Process().create_time(),
        )

    def is_dead(self) -> bool | None:
        """Whether the process has ended; None if that cannot be determined from this machine or container."""
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
