"""Identifies the process that runs an execution and determines whether it is alive."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict

from deriva_ml_core.models import FrozenModel

__all__ = ["ProcessIdentity"]

CLOCK_TOLERANCE = 10.0
"""Seconds by which the start time of a process can shift when the machine's clock is adjusted."""


class ProcessIdentity(FrozenModel):
    """A process on a machine; fields of newer versions are ignored.

    A process is judged by `boot_id` and `start_ticks`, which do not depend on the clock. Identities of earlier versions
    and of other systems than Linux lack them and are judged by `boot` and `started`.

    Args:
        host: Host name of the machine.
        boot: Boot time of the machine, in seconds since 1970.
        pid: Process id.
        namespace: PID namespace of the id; containers on one machine have different ones.
        started: Start time of the process, in seconds since 1970.
        boot_id: The kernel's random id of this boot; empty if it has none.
        start_ticks: Start time of the process, in clock ticks since the boot; None if the system does not report it.
    """

    model_config = ConfigDict(extra="ignore")

    host: str
    boot: float
    pid: int
    namespace: str = ""
    started: float
    boot_id: str = ""
    start_ticks: int | None = None

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return the identity of the current process."""
        import psutil

        process = _read_process(os.getpid())
        return cls(
            host=platform.node(),
            boot=psutil.boot_time(),
            pid=os.getpid(),
            namespace=_pid_namespace(),
            started=psutil.Process().create_time(),
            boot_id=_boot_id(),
            start_ticks=None if process is None else process.start_ticks,
        )

    def is_dead(self) -> bool | None:
        """Whether the process has ended; None if that cannot be determined from this machine or container."""
        if self.host != platform.node() or self.namespace != _pid_namespace():
            return None
        if not self.boot_id or self.start_ticks is None or not (boot_id := _boot_id()):
            return self._is_dead_by_clock()
        if self.boot_id != boot_id:
            return True
        process = _read_process(self.pid)
        if process is None:
            return _is_unused_pid(self.pid)
        return process.has_ended or process.start_ticks != self.start_ticks

    def is_of_this_boot(self) -> bool:
        """Whether the process was started on this machine since its last boot; false if that is unknown."""
        return self.host == platform.node() and self.boot_id != "" and self.boot_id == _boot_id()

    def _is_dead_by_clock(self) -> bool | None:
        import psutil

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


class _Process(NamedTuple):
    has_ended: bool
    """Whether it is a zombie: it has ended, and its parent has not noticed."""
    start_ticks: int


def _read_process(pid: int) -> _Process | None:
    """Return what the kernel reports of a process; None if there is none, or if it is hidden from this user."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the second field is the program's name in parentheses and may contain spaces and parentheses;
    # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html numbers the fields: 3 is the state, 22 the start time
    fields = stat.rpartition(")")[2].split()
    return _Process(has_ended=fields[0] in ("Z", "X"), start_ticks=int(fields[22 - 3]))


def _is_unused_pid(pid: int) -> bool | None:
    """Whether no process has an id; None if one has it, and it is hidden from this user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return None
    return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _pid_namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if link.exists() else ""
