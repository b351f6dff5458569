"""The rank of a process, from the variables that launchers set."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Mapping

import pytest

from deriva_ml_core.distributed import current_rank, global_rank, is_launched_by_rank_zero, launch_key, world_size
from waits import HANG

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
}
SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "train",
}
LIGHTNING = {
    "LOCAL_RANK": "1",
    "NODE_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "40123",
}


@pytest.mark.parametrize(
    ("environ", "rank", "size"),
    [
        pytest.param({}, None, None, id="alone"),
        pytest.param(TORCHRUN, 3, 4, id="torchrun"),
        pytest.param({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, 0, 4, id="torchrun's rank 0"),
        pytest.param(SRUN, 2, 4, id="srun"),
        pytest.param({**SRUN, **TORCHRUN}, 3, 4, id="torchrun in srun"),
        pytest.param({**SRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 0, 1, id="a torchrun in each task"),
        pytest.param({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1, 2, id="mpirun"),
        pytest.param({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2, id="mpiexec.hydra"),
        pytest.param({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"}, 1, 2, id="jsrun"),
        pytest.param({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, 1, 2, id="horovodrun"),
        pytest.param(LIGHTNING, 1, 2, id="Lightning's launcher"),
        pytest.param({**LIGHTNING, "LOCAL_RANK": "0"}, 0, 2, id="Lightning's rank 0 after the launch"),
        pytest.param({"NODE_RANK": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "4"}, 1, None, id="second node"),
        pytest.param({"NODE_RANK": "0", "MASTER_ADDR": "node-a", "MASTER_PORT": "4"}, 0, None, id="first node"),
        pytest.param(
            {**LIGHTNING, "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"},
            3,
            4,
            id="second of the second node",
        ),
        pytest.param({"LOCAL_RANK": "1"}, 1, None, id="ddp_spawn"),
        pytest.param({"RANK": "3"}, None, None, id="a rank without a size"),
        pytest.param({"RANK": "0", "WORLD_SIZE": "1", **LIGHTNING}, 1, 2, id="Lightning in a pod of one"),
        pytest.param({**SRUN, "SLURM_PROCID": "0", **LIGHTNING}, 1, 2, id="Lightning's launcher in one task of many"),
        pytest.param({"DERIVA_ML_RANK": "0", **TORCHRUN}, 0, 4, id="overridden by DERIVA_ML_RANK"),
    ],
)
def test_rank(environ: Mapping[str, str], rank: int | None, size: int | None) -> None:
    """Each launcher's variables give the global rank and the number of processes."""
    assert (global_rank(environ), world_size(environ)) == (rank, size)


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({**SRUN, "SLURM_PROCID": "1", "SLURM_NTASKS": "1"}, id="one task"),
        pytest.param({**SRUN, "SLURM_JOB_NAME": "bash"}, id="a shell under srun"),
        pytest.param({**SRUN, "SLURM_JOB_NAME": "interactive"}, id="salloc"),
        pytest.param({"SLURM_PROCID": "1"}, id="no number of tasks"),
        pytest.param({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "1"}, id="mpirun -n 1"),
        pytest.param({"GROUP_RANK": "1"}, id="a group alone"),
        pytest.param({"RANK": "first", "LOCAL_RANK": ""}, id="no numbers"),
        pytest.param({"WORLD_SIZE": "2", "MASTER_ADDR": "node-a", "MASTER_PORT": "4"}, id="before Lightning launches"),
    ],
)
def test_single_process_has_no_rank(environ: Mapping[str, str]) -> None:
    """Variables of a shell in a job, or of a single task, give no rank."""
    assert global_rank(environ) is None


@pytest.mark.parametrize(
    ("package", "name", "environ"),
    [
        ("torchelastic", "TorchElasticEnvironment", TORCHRUN),
        ("torchelastic", "TorchElasticEnvironment", {**TORCHRUN, **SRUN}),
        ("slurm", "SLURMEnvironment", {**SRUN, "SLURM_NTASKS_PER_NODE": "2"}),
        ("kubeflow", "KubeflowEnvironment", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}),
    ],
)
def test_rank_equals_lightnings(
    package: str, name: str, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank and size equal those of Lightning's own class for the launcher."""
    environments = pytest.importorskip(f"lightning.fabric.plugins.environments.{package}")
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    theirs = getattr(environments, name)()
    assert (global_rank(environ), world_size(environ)) == (theirs.global_rank(), theirs.world_size())


@pytest.mark.parametrize("job_name", ["bash", "interactive", "train"])
def test_slurm_detection_equals_lightnings(job_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SLURM shell is distinguished from a launch by its job name, as in Lightning."""
    slurm = pytest.importorskip("lightning.fabric.plugins.environments.slurm")
    environ = {**SRUN, "SLURM_JOB_NAME": job_name}
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    assert (global_rank(environ) is not None) == slurm.SLURMEnvironment.detect()


def test_launch_key_is_the_same_for_all_ranks() -> None:
    """Variables that differ between the processes of a launch are not in its key."""
    for launch, ours in ((TORCHRUN, ("RANK", "LOCAL_RANK", "GROUP_RANK")), (SRUN, ("SLURM_PROCID", "SLURM_NODEID"))):
        others = {**launch, **dict.fromkeys(ours, "0")}
        assert launch_key(launch) == launch_key(others)
        assert platform.node() not in launch_key(launch)


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        (TORCHRUN, "TORCHELASTIC_RUN_ID"),
        (TORCHRUN, "TORCHELASTIC_RESTART_COUNT"),
        (TORCHRUN, "MASTER_PORT"),
        (SRUN, "SLURM_JOB_ID"),
        (SRUN, "SLURM_STEP_ID"),
        (LIGHTNING, "MASTER_PORT"),
    ],
)
def test_launch_key_differs_between_launches(environ: Mapping[str, str], variable: str) -> None:
    """A restart, another job, another step and another port change the key."""
    assert launch_key(environ) != launch_key({**environ, variable: "17"})


def test_loopback_address_adds_the_host() -> None:
    """Two machines with a shared folder, each with a torchrun at 127.0.0.1, have different keys."""
    assert f"host={platform.node()}" in launch_key({**TORCHRUN, "MASTER_ADDR": "127.0.0.1"})


def test_launch_key_without_a_launch_name() -> None:
    """Without a launch name, the key is the parent process."""
    assert f"parent={os.getppid()}" in launch_key({"RANK": "1"})


def test_is_launched_by_rank_zero() -> None:
    """Only a launcher on the same node makes processes inherit the environment of rank 0."""
    assert [is_launched_by_rank_zero(environ) for environ in (LIGHTNING, TORCHRUN, SRUN, {})] == [
        True,
        False,
        False,
        False,
    ]


def report_rank(number: int, connection: object) -> None:
    import torch.distributed as distributed

    store = distributed.HashStore()
    distributed.init_process_group("fake", store=store, rank=number, world_size=2)
    connection.send(current_rank({}))  # type: ignore[attr-defined]


def test_rank_of_the_process_group() -> None:
    """A process spawned without variables has the rank of torch's process group."""
    pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    assert current_rank({}) is None
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=report_rank, args=(1, sender))
    child.start()
    assert receiver.poll(HANG)
    assert receiver.recv() == 1
    child.join()


def test_current_rank_does_not_import_torch() -> None:
    """Reading the rank does not import torch."""
    code = "import sys, deriva_ml_core.distributed as d; d.current_rank({}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
