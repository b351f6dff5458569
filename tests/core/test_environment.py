"""The description of the environment: true, JSON, and made without importing anything heavy."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.plugins.builtin.environment import describe_environment


def test_this_process() -> None:
    """Version, platform, host, folder, arguments and processors are those of this process, as JSON."""
    described = describe_environment({})
    assert json.loads(json.dumps(described)) == described
    expected = {
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "working_directory": str(Path.cwd()),
        "argv": sys.argv,
        "processors": os.cpu_count(),
    }
    assert {name: described[name] for name in expected} == expected
    assert described["python"]["version"] == platform.python_version()  # type: ignore[index, call-overload]
    assert described["memory_bytes"] > 0  # type: ignore[operator]


def test_the_packages_are_those_that_are_installed() -> None:
    """Names and versions agree with the packages' own metadata."""
    described = describe_environment({})["packages"]
    expected = {
        re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower(): distribution.version
        for distribution in reversed(list(importlib.metadata.distributions()))
    }
    assert described == expected


def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two installed versions the one that is imported is named; other files say nothing."""
    for folder, version in (("one", "1.0"), ("two", "2.0")):
        (tmp_path / folder / f"Some.Pack_age-{version}.dist-info").mkdir(parents=True)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    (tmp_path / "one" / "old-0.1-py3.11.egg-info").mkdir()
    (tmp_path / "one" / "nothing-1").mkdir()
    packages = describe_environment({})["packages"]
    assert isinstance(packages, dict)
    assert (packages["some-pack-age"], packages["old"]) == ("2.0", "0.1")
    assert "nothing" not in packages


def test_only_chosen_variables_are_kept() -> None:
    """What changes a run or says where it ran is kept, the rest of the environment is nobody's business."""
    kept = {
        "CUDA_VISIBLE_DEVICES": "0",
        "SLURM_JOB_ID": "1",
        "DERIVA_ML_HOME": "/x",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "2",
        "KERAS_BACKEND": "torch",
        "PL_GLOBAL_SEED": "1",
        "CONDA_DEFAULT_ENV": "e",
        "VIRTUAL_ENV": "/v",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "host",
        "LC_ALL": "C",
        "TZ": "UTC",
    }
    left = {
        "DERIVA_ML_EXECUTIONS": "{}",
        "HOME": "/root",
        "EDITOR": "vi",
        "MAIL": "x",
        "SSH_CLIENT": "y",
        "PLAIN": "z",
        "CITY": "z",
        "MY_CUDA_X": "z",
    }
    assert describe_environment({**kept, **left})["variables"] == dict(sorted(kept.items()))


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """A process whose working folder was removed is described too."""
    code = (
        "import os, sys; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "print(describe_environment({})['working_directory'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_nothing_heavy_is_imported() -> None:
    """No framework is loaded to describe it."""
    code = (
        "import sys; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "describe_environment({})\n"
        "print([name for name in ('torch', 'keras', 'numpy', 'git', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_torch_that_is_there_is_not_started() -> None:
    """With torch imported CUDA stays as it was, so that the process can still fork workers that use it."""
    torch = pytest.importorskip("torch")
    started = torch.cuda.is_initialized()
    gpus = describe_environment({})["gpus"]
    assert isinstance(gpus, list)
    assert torch.cuda.is_initialized() == started
