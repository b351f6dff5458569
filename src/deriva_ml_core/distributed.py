"""Determines rank and world size of this process from its launcher, before a process group exists."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "RANK_VARIABLE",
    "global_rank",
    "process_group_rank",
    "is_launched_by_rank_zero",
    "launch_key",
    "current_rank",
    "world_size",
]

RANK_VARIABLE = "DERIVA_ML_RANK"
"""Environment variable that overrides all others; 0 makes a process record its own run, whoever launched it."""


class Launcher(NamedTuple):
    """The environment variables of one way to launch processes.

    Args:
        rank_variable: Variable with the rank of the process.
        size_variable: Variable with the number of processes.
        launch_variables: Variables that are equal in all processes of a launch and differ between launches.
    """

    rank_variable: str
    size_variable: str
    launch_variables: tuple[str, ...]


_MASTER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")
_TORCH = Launcher(
    "RANK", "WORLD_SIZE", ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", *_MASTER_VARIABLES)
)
_SLURM = Launcher("SLURM_PROCID", "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
_KERAS_PREFIX = "KERAS_DISTRIBUTION"
_OTHER_LAUNCHERS = (
    Launcher(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", *_MASTER_VARIABLES),
    ),
    Launcher("PMI_RANK", "PMI_SIZE", _MASTER_VARIABLES),
    Launcher("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", ("LSB_JOBID", *_MASTER_VARIABLES)),
    Launcher("HOROVOD_RANK", "HOROVOD_SIZE", ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")),
    Launcher(f"{_KERAS_PREFIX}_PROCESS_ID", f"{_KERAS_PREFIX}_NUM_PROCESSES", (f"{_KERAS_PREFIX}_JOB_ADDRESSES",)),
)
"""Open MPI, MPICH and Intel MPI, LSF's jsrun, Horovod, Keras; variables as in their documentation."""

_NODE_LOCAL = Launcher("LOCAL_RANK", "WORLD_SIZE", _MASTER_VARIABLES)
"""Lightning's own launcher, and launchers that number only the processes of a node."""

_INTERACTIVE_JOB_NAMES = ("bash", "interactive")
"""Names of interactive SLURM jobs, in which each command is a run of its own; Lightning uses the same names."""

_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def global_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank of this process among all processes of a distributed run.

    Args:
        environ: Environment variables.

    Returns:
        0 for the process that records the run. Above 0 for the others; the exact rank if the environment has it. None
        for a process that runs alone or that will launch the others itself.
    """
    detected = _detect_launcher(environ)
    return None if detected is None else detected[1]


def world_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of processes of a distributed run; None if the environment does not have it."""
    detected = _detect_launcher(environ)
    return None if detected is None else _read_int(environ, detected[0].size_variable)


def is_launched_by_rank_zero(environ: Mapping[str, str]) -> bool:
    """Whether rank 0 may have launched this process, which then inherits the environment of rank 0."""
    detected = _detect_launcher(environ)
    return detected is not None and detected[0] is _NODE_LOCAL


def launch_key(environ: Mapping[str, str]) -> str:
    """Return a key that all processes of one launch share, and no other launch at the same time.

    A later launch can have the same key, since torchrun's defaults are always the same.
    """
    detected = _detect_launcher(environ)
    names = () if detected is None else detected[0].launch_variables
    parts = [f"{name}={environ[name]}" for name in names if name in environ]
    if not parts:  # for example, all were started by one shell
        return f"host={platform.node()} parent={os.getppid()}"
    # a loopback address is the same on every machine
    if "MASTER_ADDR" in names and environ.get("MASTER_ADDR") in _LOOPBACK_HOSTS:
        parts.append(f"host={platform.node()}")
    return " ".join(parts)


def process_group_rank() -> int | None:
    """Return the rank in torch's process group; None if there is no group or torch is not imported."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def current_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank as far as it is known; a spawned or forked process gets its rank late.

    Returns:
        The result of `global_rank`, else the rank in torch's process group.
    """
    rank = global_rank(environ)
    return process_group_rank() if rank is None else rank


def _detect_launcher(environ: Mapping[str, str]) -> tuple[Launcher, int] | None:
    """Return the launcher of this process and the rank that it assigned."""
    if (own := _read_int(environ, RANK_VARIABLE)) is not None:
        return _TORCH, own
    for launcher in (_TORCH, _SLURM, *_OTHER_LAUNCHERS):
        rank = _read_int(environ, launcher.rank_variable)
        if rank is None or not _is_distributed(launcher, environ):
            continue
        if rank == 0 and _read_int(environ, _NODE_LOCAL.rank_variable):
            break  # launched by the launcher's only process on this node, whose variables it inherits
        return launcher, rank
    local, node = _read_int(environ, _NODE_LOCAL.rank_variable), _read_int(environ, "NODE_RANK")
    if local is None and node is None:
        return None
    node = _read_int(environ, "GROUP_RANK") if node is None else node
    return _NODE_LOCAL, (node or 0) * (_read_int(environ, "LOCAL_WORLD_SIZE") or 1) + (local or 0)


def _is_distributed(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether the launcher started several processes; a rank variable without a size may mean something else."""
    if launcher is _SLURM and environ.get("SLURM_JOB_NAME") in _INTERACTIVE_JOB_NAMES:
        return False
    size = _read_int(environ, launcher.size_variable)
    # a single process of torchrun runs alone, even inside one task of many
    return size is not None and (size > 1 or launcher is _TORCH)


def _read_int(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else None
