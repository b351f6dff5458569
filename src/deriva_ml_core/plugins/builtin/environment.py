"""The environment that a run is in: versions, platform, packages, arguments, chosen variables, processors."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.plugins.manager import hookimpl

if TYPE_CHECKING:
    from pydantic import JsonValue

RECORDED_VARIABLES = re.compile(
    r"(?!DERIVA_ML_EXECUTIONS|DERIVA_ML_NOTEBOOK_(?:COMMAND|RUN))"  # how the processes of one run find each other
    r"(?:(?:CONDA|CUBLAS|CUDA|CUDNN|DERIVA|HF|HIP|HYDRA|JAX|KERAS|LC|LIGHTNING|LSB|MKL|NCCL|NUMEXPR|NVIDIA|OMP|OMPI|OPENBLAS|"
    r"PBS|PL|PYTORCH|ROCR|SLURM|TF|TORCH|TORCHINDUCTOR|TRANSFORMERS|UV|WANDB|XLA)_.*"
    r"|PYTHON.*|VIRTUAL_ENV|(?:LOCAL_|NODE_|GROUP_)?RANK|(?:LOCAL_)?WORLD_SIZE|MASTER_(?:ADDR|PORT)|LANG|TZ|CI)"
)
"""The environment variables that are kept: those that change what a run computes, or say where it ran."""

COMMAND_VARIABLE = "DERIVA_ML_NOTEBOOK_COMMAND"
"""What ``deriva-ml-run-notebook`` was called with, for the kernel that it starts: JSON, without secrets."""

_DISTRIBUTION_FOLDER = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")


@hookimpl
def describe_environment(environ: Mapping[str, str]) -> dict[str, JsonValue]:
    """Describe this process and its machine; in a notebook that a command runs, the command is that command's."""
    command = json.loads(environ.get(COMMAND_VARIABLE, "{}"))  # ours: no user writes it
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "prefix": sys.prefix,
        },
        "platform": platform.platform(),
        "machine": platform.machine(),
        "hostname": socket.gethostname(),
        "user": environ.get("USER") or environ.get("LOGNAME"),
        "pid": os.getpid(),
        "working_directory": command.get("working_directory") or _working_directory(),
        "argv": command.get("argv") or [*sys.argv],
        "orig_argv": [] if command else [*sys.orig_argv],
        "processors": os.cpu_count(),
        "processors_usable": _usable_processors(),
        "memory_bytes": _total_memory(),
        "gpus": [*_gpu_names()],
        "packages": {**_installed_packages()},
        "variables": {name: environ[name] for name in sorted(environ) if RECORDED_VARIABLES.fullmatch(name)},
    }


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def _usable_processors() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _installed_packages() -> dict[str, str]:
    """The installed distributions and their versions, by the names of their folders, which needs no file to be read."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names alone, and hundreds of them
        except OSError:
            continue
        for part in map(_DISTRIBUTION_FOLDER.fullmatch, names):
            if part:
                found.setdefault(re.sub(r"[-_.]+", "-", part["name"]).lower(), part["version"])
    return dict(sorted(found.items()))


def _gpu_names() -> list[str]:
    """The graphics processors' names, as the driver's files or an already imported torch tell them."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if files:
        return [model for file in files for model in re.findall(r"(?m)^Model:\s*(.+?)\s*$", file.read_text())]
    torch = sys.modules.get("torch")
    # asking for a name would start CUDA in this process, after which it could not fork workers that use it
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]
