"""Which of a training's processes this one is, by what launched it: known before any process group exists."""

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
"""The variable that is believed before all others: 0 for a process that stands for itself, whoever launched it."""


class Launcher(NamedTuple):
    """The environment variables of one way to launch processes.

    Args:
        rank_variable: The process's number among all.
        size_variable: How many there are.
        launch_variables: What all processes of one launch have alike, and those of another launch have not.
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
"""Open MPI, MPICH and Intel MPI, LSF's jsrun, Horovod, Keras: by their own documentation."""

_NODE_LOCAL = Launcher("LOCAL_RANK", "WORLD_SIZE", _MASTER_VARIABLES)
"""Lightning's own launcher, and whoever numbers the processes of a node alone."""

_INTERACTIVE_JOB_NAMES = ("bash", "interactive")
"""The names of SLURM jobs that are a shell, in which each command is a run of its own; Lightning judges alike."""

_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def global_rank(environ: Mapping[str, str]) -> int | None:
    """The number of this process among all processes of its training.

    Args:
        environ: Environment variables.

    Returns:
        0 for the one that writes; above 0 for one that follows, the exact number where the environment tells it; None
        for a process that runs alone, or that will launch the others itself.
    """
    found = _detect_launcher(environ)
    return None if found is None else found[1]


def world_size(environ: Mapping[str, str]) -> int | None:
    """How many processes the training has; None where the environment does not tell."""
    found = _detect_launcher(environ)
    return None if found is None else _read_int(environ, found[0].size_variable)


def is_launched_by_rank_zero(environ: Mapping[str, str]) -> bool:
    """Whether rank zero itself may have launched this process, which then has what rank zero's environment held."""
    found = _detect_launcher(environ)
    return found is not None and found[0] is _NODE_LOCAL


def launch_key(environ: Mapping[str, str]) -> str:
    """What all processes of one launch, and no others that run now, have in common.

    A key may come again in a later launch: torchrun's defaults are always the same.
    """
    found = _detect_launcher(environ)
    names = () if found is None else found[0].launch_variables
    parts = [f"{name}={environ[name]}" for name in names if name in environ]
    if not parts:  # one shell, say, began them all
        return f"host={platform.node()} parent={os.getppid()}"
    if (
        "MASTER_ADDR" in names and environ.get("MASTER_ADDR") in _LOOPBACK_HOSTS
    ):  # other machines call themselves so too
        parts.append(f"host={platform.node()}")
    return " ".join(parts)


def process_group_rank() -> int | None:
    """The rank in torch's process group; None where there is no group, and where torch is not imported."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def current_rank(environ: Mapping[str, str]) -> int | None:
    """The rank as it is known by now: a process that was spawned or forked learns it late.

    Returns:
        As `global_rank`; that of torch's process group where the environment does not tell.
    """
    rank = global_rank(environ)
    return process_group_rank() if rank is None else rank


def _detect_launcher(environ: Mapping[str, str]) -> tuple[Launcher, int] | None:
    """The launcher whose word counts, and the rank that it gave."""
    if (own := _read_int(environ, RANK_VARIABLE)) is not None:
        return _TORCH, own
    for launcher in (_TORCH, _SLURM, *_OTHER_LAUNCHERS):
        rank = _read_int(environ, launcher.rank_variable)
        if rank is None or not _is_distributed(launcher, environ):
            continue
        if rank == 0 and _read_int(environ, _NODE_LOCAL.rank_variable):
            break  # it was launched from inside the launcher's only process on this node, and inherits its variables
        return launcher, rank
    local, node = _read_int(environ, _NODE_LOCAL.rank_variable), _read_int(environ, "NODE_RANK")
    if local is None and node is None:
        return None
    node = _read_int(environ, "GROUP_RANK") if node is None else node
    return _NODE_LOCAL, (node or 0) * (_read_int(environ, "LOCAL_WORLD_SIZE") or 1) + (local or 0)


def _is_distributed(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether there are others: a variable of that name that stands alone may mean anything."""
    if launcher is _SLURM and environ.get("SLURM_JOB_NAME") in _INTERACTIVE_JOB_NAMES:
        return False
    size = _read_int(environ, launcher.size_variable)
    # torchrun's only process runs alone, also inside one task of many
    return size is not None and (size > 1 or launcher is _TORCH)


def _read_int(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else None
