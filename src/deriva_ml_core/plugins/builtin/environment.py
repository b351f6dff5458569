"""Built-in plugin that describes the environment of a run: versions, platform, packages, arguments, hardware."""

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

from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.plugins.manager import hookimpl

if TYPE_CHECKING:
    from pydantic import JsonValue

RECORDED_VARIABLES = re.compile(
    r"(?!DERIVA_ML_EXECUTIONS|DERIVA_ML_NOTEBOOK_(?:COMMAND|RUN))"  # coordination between the processes of one run
    # Terraform's variables, which share the prefix of TensorFlow's
    r"(?!TF_(?:ACC|APPEND_USER_AGENT|CLI|CLOUD|DATA_DIR\Z|ENCRYPTION|HTTP|IGNORE|IN_AUTOMATION|INPUT|LOG|PLUGIN|REATTACH"
    r"|REGISTRY|SKIP|STATE|TOKEN|VAR|WARN|WORKSPACE))"
    r"(?:(?:CONDA|CUBLAS|CUDA|CUDNN|DERIVA|HF|HIP|HYDRA|JAX|KERAS|LC|LIGHTNING|LSB|MKL|NCCL|NUMEXPR|NVIDIA|OMP|OMPI|OPENBLAS|"
    r"PBS|PL|PYTORCH|ROCR|SLURM|TF|TORCH|TORCHINDUCTOR|TRANSFORMERS|UV|WANDB|XLA)_.*"
    r"|PYTHON.*|VIRTUAL_ENV|(?:LOCAL_|NODE_|GROUP_)?RANK|(?:LOCAL_)?WORLD_SIZE|MASTER_(?:ADDR|PORT)|LANG|TZ|CI)"
)
"""The environment variables to record: those that affect the result of a run, or identify where it ran."""

COMMAND_VARIABLE = "DERIVA_ML_NOTEBOOK_COMMAND"
"""The command line of ``deriva-ml-run-notebook``, for the kernel that it starts: JSON, without secrets."""

_DISTRIBUTION_FOLDER = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")


@hookimpl
def describe_environment(environ: Mapping[str, str]) -> dict[str, JsonValue]:
    """Describe this process and its machine; in a notebook run by a command, ``argv`` is the command's."""
    command = json.loads(environ.get(COMMAND_VARIABLE, "{}"))  # set by deriva-ml-run-notebook only
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "prefix": sys.prefix,
        },
        "platform": _platform(),
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


def _platform() -> str:
    try:
        return platform.platform()
    # it starts a process; in Python 3.13.0 that is a SystemError in a deleted folder if sys.path begins with ""
    except (OSError, SystemError):
        uname = os.uname()
        return f"{uname.sysname}-{uname.release}-{uname.machine}"


def _working_directory() -> str | None:
    folder = find_current_folder()
    return None if folder is None else str(folder)


def _usable_processors() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _installed_packages() -> dict[str, str]:
    """Return the installed distributions and their versions, from folder names, without reading any file."""
    packages: dict[str, str] = {}
    # setuptools, once imported, adds a folder with its own copies of packages
    for folder in (each for each in sys.path if not each.endswith("/setuptools/_vendor")):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - only names are needed, and there are hundreds
        except OSError:
            continue
        for part in map(_DISTRIBUTION_FOLDER.fullmatch, names):
            if part:
                packages.setdefault(re.sub(r"[-_.]+", "-", part["name"]).lower(), part["version"])
    return dict(sorted(packages.items()))


def _gpu_names() -> list[str]:
    """Return the names of the GPUs, from the driver's files or from torch if it is already imported."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if files:
        return [model for file in files for model in re.findall(r"(?m)^Model:\s*(.+?)\s*$", file.read_text())]
    torch = sys.modules.get("torch")
    # reading a name would initialize CUDA in this process, after which it could not fork workers that use it
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]
