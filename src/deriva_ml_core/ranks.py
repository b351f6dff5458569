"""Which of a training's processes this one is, by what launched it: known before any process group exists."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["RANK", "global_rank", "group_rank", "inherits", "launch_key", "present_rank", "world_size"]

RANK = "DERIVA_ML_RANK"
"""The variable that is believed before all others: 0 for a process that stands for itself, whoever launched it."""


class Launcher(NamedTuple):
    """The environment variables of one way to launch processes.

    Args:
        rank: The process's number among all.
        size: How many there are.
        run: What all processes of one launch have alike, and those of another launch have not.
    """

    rank: str
    size: str
    run: tuple[str, ...]


_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_TORCH = Launcher("RANK", "WORLD_SIZE", ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", *_MASTER))
_SLURM = Launcher("SLURM_PROCID", "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
_KERAS = "KERAS_DISTRIBUTION"
_OTHERS = (
    Launcher("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", *_MASTER)),
    Launcher("PMI_RANK", "PMI_SIZE", _MASTER),
    Launcher("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", ("LSB_JOBID", *_MASTER)),
    Launcher("HOROVOD_RANK", "HOROVOD_SIZE", ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")),
    Launcher(f"{_KERAS}_PROCESS_ID", f"{_KERAS}_NUM_PROCESSES", (f"{_KERAS}_JOB_ADDRESSES",)),
)
"""Open MPI, MPICH and Intel MPI, LSF's jsrun, Horovod, Keras: by their own documentation."""

_NODE = Launcher("LOCAL_RANK", "WORLD_SIZE", _MASTER)
"""Lightning's own launcher, and whoever numbers the processes of a node alone."""

_INTERACTIVE = ("bash", "interactive")
"""The names of SLURM jobs that are a shell, in which each command is a run of its own; Lightning judges alike."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def global_rank(environ: Mapping[str, str]) -> int | None:
    """The number of this process among all processes of its training.

    Args:
        environ: Environment variables.

    Returns:
        0 for the one that writes; above 0 for one that follows, the exact number where the environment tells it; None
        for a process that runs alone, or that will launch the others itself.
    """
    found = _found(environ)
    return None if found is None else found[1]


def world_size(environ: Mapping[str, str]) -> int | None:
    """How many processes the training has; None where the environment does not tell."""
    found = _found(environ)
    return None if found is None else _number(environ, found[0].size)


def inherits(environ: Mapping[str, str]) -> bool:
    """Whether rank zero itself may have launched this process, which then has what rank zero's environment held."""
    found = _found(environ)
    return found is not None and found[0] is _NODE


def launch_key(environ: Mapping[str, str]) -> str:
    """What all processes of one launch, and no others that run now, have in common.

    A key may come again in a later launch: torchrun's defaults are always the same.
    """
    found = _found(environ)
    names = () if found is None else found[0].run
    parts = [f"{name}={environ[name]}" for name in names if name in environ]
    if not parts:  # one shell, say, began them all
        return f"host={platform.node()} parent={os.getppid()}"
    if "MASTER_ADDR" in names and environ.get("MASTER_ADDR") in _LOOPBACK:  # other machines call themselves so too
        parts.append(f"host={platform.node()}")
    return " ".join(parts)


def group_rank() -> int | None:
    """The rank in torch's process group; None where there is no group, and where torch is not imported."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def present_rank(environ: Mapping[str, str]) -> int | None:
    """The rank as it is known by now: a process that was spawned or forked learns it late.

    Returns:
        As `global_rank`; that of torch's process group where the environment does not tell.
    """
    rank = global_rank(environ)
    return group_rank() if rank is None else rank


def _found(environ: Mapping[str, str]) -> tuple[Launcher, int] | None:
    """The launcher whose word counts, and the rank that it gave."""
    if (own := _number(environ, RANK)) is not None:
        return _TORCH, own
    for launcher in (_TORCH, _SLURM, *_OTHERS):
        rank = _number(environ, launcher.rank)
        if rank is None or not _is_meant(launcher, environ):
            continue
        if rank == 0 and _number(environ, _NODE.rank):
            break  # it was launched from inside the launcher's only process on this node, and inherits its variables
        return launcher, rank
    local, node = _number(environ, _NODE.rank), _number(environ, "NODE_RANK")
    if local is None and node is None:
        return None
    node = _number(environ, "GROUP_RANK") if node is None else node
    return _NODE, (node or 0) * (_number(environ, "LOCAL_WORLD_SIZE") or 1) + (local or 0)


def _is_meant(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether there are others: a variable of that name that stands alone may mean anything."""
    if launcher is _SLURM and environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return False
    size = _number(environ, launcher.size)
    # torchrun's only process runs alone, also inside one task of many
    return size is not None and (size > 1 or launcher is _TORCH)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else None
