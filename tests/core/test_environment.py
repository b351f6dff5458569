"""The environment snapshot: correct, JSON, and created without importing heavy packages."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.plugins.builtin.environment import describe_environment


def test_this_process() -> None:
    """Version, platform, host, folder, arguments and processors are those of this process, as JSON."""
    environment = describe_environment({})
    assert json.loads(json.dumps(environment)) == environment
    expected = {
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "working_directory": str(Path.cwd()),
        "argv": sys.argv,
        "processors": os.cpu_count(),
    }
    assert {name: environment[name] for name in expected} == expected
    assert environment["python"]["version"] == platform.python_version()  # type: ignore[index, call-overload]
    assert environment["memory_bytes"] > 0  # type: ignore[operator]


def test_installed_packages() -> None:
    """Names and versions agree with the packages' metadata."""
    # a new process, as tests may have imported setuptools, which adds to sys.path
    code = (
        "import importlib.metadata, json, re\n"
        "from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "expected = {\n"
        "    re.sub(r'[-_.]+', '-', distribution.metadata['Name']).lower(): distribution.version\n"
        "    for distribution in reversed(list(importlib.metadata.distributions()))\n"
        "}\n"
        "print(json.dumps([describe_environment({})['packages'], expected]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages, expected = json.loads(done.stdout)
    assert packages == expected
    assert "pydantic" in packages


def test_vendored_packages() -> None:
    """The copies of packages that setuptools adds to ``sys.path`` when it is imported are not recorded."""
    code = (
        "import json, sys; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "before = describe_environment({})['packages']\n"
        "import setuptools\n"
        "vendored = [folder for folder in sys.path if folder.endswith('/_vendor')]\n"
        "print(json.dumps([len(vendored), describe_environment({})['packages'] == before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1, True]


def test_first_package_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two installed versions, the importable one is recorded; other folders are ignored."""
    for folder, version in (("one", "1.0"), ("two", "2.0")):
        (tmp_path / folder / f"Some.Pack_age-{version}.dist-info").mkdir(parents=True)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    (tmp_path / "one" / "old-0.1-py3.11.egg-info").mkdir()
    (tmp_path / "one" / "nothing-1").mkdir()
    packages = describe_environment({})["packages"]
    assert isinstance(packages, dict)
    assert (packages["some-pack-age"], packages["old"]) == ("2.0", "0.1")
    assert "nothing" not in packages


def test_recorded_variables() -> None:
    """Variables that affect a run or identify where it ran are recorded; others are not."""
    recorded = {
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
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_CONFIG": "{}",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "TF_DETERMINISTIC_OPS": "1",
        "TF_DATA_EXPERIMENT_OPT_IN": "x",
        "TZ": "UTC",
    }
    ignored = {
        "DERIVA_ML_EXECUTIONS": "{}",
        "HOME": "/root",
        "EDITOR": "vi",
        "MAIL": "x",
        "SSH_CLIENT": "y",
        "PLAIN": "z",
        "CITY": "z",
        "MY_CUDA_X": "z",
        # Terraform's
        "TF_VAR_region": "z",
        "TF_TOKEN_app_terraform_io": "z",
        "TF_CLI_ARGS": "z",
        "TF_CLI_ARGS_plan": "-var db_pw=z",
        "TF_HTTP_USERNAME": "z",
        "TF_ENCRYPTION": "z",
        "TF_WORKSPACE": "z",
        "TF_DATA_DIR": "z",
        "TF_LOG": "z",
        "TF_LOG_PATH": "z",
    }
    assert describe_environment({**recorded, **ignored})["variables"] == dict(sorted(recorded.items()))


def test_deleted_working_directory(tmp_path: Path) -> None:
    """A process whose working directory was deleted is described too."""
    code = (
        "import os, sys; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "print(describe_environment({})['working_directory'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("error", ["SystemError", "FileNotFoundError"])
def test_undetermined_platform(error: str) -> None:
    """Where the standard library cannot name the platform, as in Python 3.13.0 in a deleted folder, the kernel does."""
    code = (
        "import os, platform; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        f"def fail(): raise {error}\n"
        "platform.platform = fail\n"
        "uname = os.uname()\n"
        "print(describe_environment({})['platform'] == f'{uname.sysname}-{uname.release}-{uname.machine}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_nothing_heavy_is_imported() -> None:
    """No framework is imported for the description."""
    code = (
        "import sys; from deriva_ml_core.plugins.builtin.environment import describe_environment\n"
        "describe_environment({})\n"
        "print([name for name in ('torch', 'keras', 'numpy', 'git', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cuda_is_not_initialized() -> None:
    """With torch imported, CUDA stays uninitialized, so that the process can still fork workers that use it."""
    torch = pytest.importorskip("torch")
    started = torch.cuda.is_initialized()
    gpus = describe_environment({})["gpus"]
    assert isinstance(gpus, list)
    assert torch.cuda.is_initialized() == started
