"""The callback in real fits of Lightning, under both of its names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainings import Line, outputs, told

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightnings import IGNORED, callback, held_out, loader, model_of, progress_of, trainer_of  # noqa: E402

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import UploadFailed  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


def test_a_fit_is_recorded(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """Each epoch leaves a status with its metrics and a checkpoint that holds the weights; the end uploads all."""
    model = model_of(package)
    with execution:
        trainer_of(package, callback(execution, checkpoints="all")).fit(model, loader(), held_out())
        assert execution.staged_assets() == []
    assert execution.status is Status.completed
    assert [message.partition(": ")[0] for message in told(execution)] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    assert [(each.epoch, each.epochs, each.step) for each in progress_of(execution)] == [
        (1, 3, 4),
        (2, 3, 8),
        (3, 3, 12),
    ]
    assert [set(each.metrics) for each in progress_of(execution)] == [{"loss", "val_loss"}] * 3
    checkpoints = outputs(ml, execution, "Model")
    assert list(checkpoints) == ["epoch-0001.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt"]
    last = torch.load(execution.download_asset(checkpoints["epoch-0003.ckpt"]), weights_only=False)
    assert all(torch.equal(last["state_dict"][name], weight) for name, weight in model.state_dict().items())
    assert "metrics.jsonl" in outputs(ml, execution, "Execution_Metadata")


@pytest.mark.parametrize("ours_first", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_trainer_takes_the_callback_alone(home: Path, package: ModuleType, ours_first: bool) -> None:
    """``Trainer(callbacks=callback)`` asks for that package's own class; an imported package brings in no other."""
    imports = ["import deriva_ml_lightning", f"import {package.__name__} as package"]
    program = f"""
{chr(10).join(imports if ours_first else reversed(imports))}
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
workflow = Workflow(name="Alone", workflow_type="Training", url="https://example.org/a.py", checksum="a")
execution = DerivaML().create_execution(ExecutionConfiguration(workflow=workflow))
callback = deriva_ml_lightning.DerivaMLCallback(execution)
trainer = package.Trainer(callbacks=callback, logger=False, enable_checkpointing=False, accelerator="cpu")
assert callback in trainer.callbacks
import sys
imported = {{"lightning.pytorch", "pytorch_lightning"}}.intersection(sys.modules)
assert {ours_first} or imported == {{{package.__name__!r}}}, imported
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_callback_touches_no_weights(execution: Execution, package: ModuleType) -> None:
    """With the same seed, a fit with the callback ends in bit-identical weights as one without."""
    bare, recorded = model_of(package), model_of(package)
    torch.manual_seed(7)
    trainer_of(package).fit(bare, loader(), held_out())
    torch.manual_seed(7)
    with execution:
        trainer_of(package, callback(execution)).fit(recorded, loader(), held_out())
    assert len(told(execution)) == 3
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())


def test_the_sanity_check_is_silent(execution: Execution, lightning: ModuleType) -> None:
    """Validation before the first epoch makes neither a status nor a checkpoint nor a metric."""
    seen: list[int] = []

    def on_train_start(_: Any) -> None:
        seen.append(
            len(told(execution)) + sum(asset.filename != "training.json" for asset in execution.staged_assets())
        )

    with execution:
        trainer = trainer_of(lightning, callback(execution, upload="never"), max_epochs=1, num_sanity_val_steps=2)
        trainer.fit(model_of(lightning, on_train_start=on_train_start), loader(), held_out())
    assert seen == [0]
    assert len(told(execution)) == 1


def test_metrics_belong_to_the_epoch_that_logged_them(execution: Execution, lightning: ModuleType) -> None:
    """What the module's own ``on_train_epoch_end`` logs counts for that epoch; no value is told for another one."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("ended", float(self.current_epoch + 1))

    with execution:
        trainer = trainer_of(lightning, callback(execution, upload="never"), max_epochs=4, check_val_every_n_epoch=2)
        trainer.fit(model_of(lightning, on_train_epoch_end=on_train_epoch_end), loader(), held_out())
    metrics = [each.metrics for each in progress_of(execution)]
    assert [each["ended"] for each in metrics] == [1.0, 2.0, 3.0, 4.0]
    assert ["val_loss" in each for each in metrics] == [False, True, False, True]


def test_nan_is_told(execution: Execution, lightning: ModuleType) -> None:
    """A loss that became NaN is told as NaN, and the training goes on."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("broken", float("nan"))

    with execution:
        trainer_of(lightning, callback(execution, upload="never"), max_epochs=2).fit(
            model_of(lightning, on_train_epoch_end=on_train_epoch_end), loader()
        )
    assert ["broken=nan" in message for message in told(execution)] == [True, True]


def test_training_without_a_known_end(execution: Execution, lightning: ModuleType) -> None:
    """With ``max_steps`` alone nobody knows the number of epochs, and no status makes one up."""
    with execution:
        trainer_of(lightning, callback(execution, upload="never"), max_epochs=-1, max_steps=8).fit(
            model_of(lightning), loader()
        )
    assert [message.partition(":")[0] for message in told(execution)] == ["Epoch 1", "Epoch 2"]


def test_a_fit_resumes_from_a_kept_checkpoint(
    ml: DerivaML, new_execution: Callable[[], Execution], lightning: ModuleType
) -> None:
    """A kept checkpoint is a whole one: a new fit goes on from it with the epoch that follows."""
    with new_execution() as first:
        trainer_of(lightning, callback(first), max_epochs=2).fit(model_of(lightning), loader())
    with new_execution() as second:
        kept = second.download_asset(outputs(ml, first, "Model")["epoch-0002.ckpt"])
        trainer_of(lightning, callback(second, checkpoints="all"), max_epochs=4).fit(
            model_of(lightning), loader(), ckpt_path=str(kept), weights_only=False
        )
    assert [message.partition(":")[0] for message in told(second)] == ["Epoch 3/4", "Epoch 4/4"]
    assert list(outputs(ml, second, "Model")) == ["epoch-0003.ckpt", "epoch-0004.ckpt"]
    assert [asset.filename for asset in second.list_assets("Input")] == ["epoch-0002.ckpt"]


def test_the_trainers_own_checkpoints_stay_as_they_are(
    execution: Execution, lightning: ModuleType, tmp_path: Path
) -> None:
    """A ModelCheckpoint beside the callback keeps its files and its best path, after the fit too."""
    own = lightning.callbacks.ModelCheckpoint(dirpath=tmp_path / "own", monitor="val_loss", save_top_k=1)
    with execution:
        trainer = trainer_of(lightning, callback(execution), own, enable_checkpointing=True)
        trainer.fit(model_of(lightning), loader(), held_out())
        assert Path(own.best_model_path).is_file()
        trainer.validate(ckpt_path="best", dataloaders=held_out(), verbose=False, weights_only=False)
    assert [message.partition(":")[0] for message in told(execution)][3:] == ["Validation"]


@pytest.mark.parametrize(("which", "kept"), [("none", []), ("all", ["epoch-0002.ckpt", "epoch-0004.ckpt"])])
def test_checkpoints_are_as_far_apart_as_asked(
    execution: Execution, lightning: ModuleType, which: str, kept: list[str]
) -> None:
    """``save_every_n_epochs`` spaces the checkpoints, and ``checkpoints="none"`` keeps none."""
    with execution:
        one = callback(execution, checkpoints=which, save_every_n_epochs=2, upload="never")
        trainer_of(lightning, one, max_epochs=4).fit(model_of(lightning), loader())
    assert [asset.filename for asset in execution.staged_assets() if asset.table == "Model"] == kept


def test_checkpoints_go_where_they_were_asked_to(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """``checkpoint_table`` and ``checkpoint_types`` hold for Lightning's checkpoints."""
    with execution:
        one = callback(execution, checkpoint_table="Execution_Asset", checkpoint_types=["Model_File", "Derived"])
        trainer_of(lightning, one, max_epochs=1).fit(model_of(lightning), loader())
    asset = outputs(ml, execution, "Execution_Asset")["epoch-0001.ckpt"]
    assert set(asset.asset_types) == {"Model_File", "Derived", "Best_Checkpoint", "Last_Checkpoint"}


def test_nothing_is_uploaded_where_that_was_asked_for(
    ml: DerivaML, execution: Execution, lightning: ModuleType
) -> None:
    """With ``upload="never"`` all waits for the user's own call."""
    with execution:
        trainer_of(lightning, callback(execution, upload="never"), max_epochs=1).fit(model_of(lightning), loader())
    assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt"]


def test_a_failure_keeps_the_epochs_before_it(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """An exception in epoch 3 leaves the run failed with its reason, and two epochs told, kept and ready to be sent."""

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("the data ran out")

    with pytest.raises(RuntimeError), execution:
        trainer_of(lightning, callback(execution, checkpoints="all")).fit(
            model_of(lightning, on_train_epoch_start=on_train_epoch_start), loader()
        )
    assert execution.status is Status.failed
    assert "the data ran out" in execution.status_detail
    assert [message.partition(":")[0] for message in told(execution)[:2]] == ["Epoch 1/3", "Epoch 2/3"]
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]


def test_an_epoch_that_failed_at_its_very_end_is_told(execution: Execution, lightning: ModuleType) -> None:
    """An exception in the module's ``on_train_epoch_end`` does not hide the epoch that had just been trained."""

    def on_train_epoch_end(_: Any) -> None:
        raise RuntimeError("at the end")

    with pytest.raises(RuntimeError), execution:
        trainer_of(lightning, callback(execution)).fit(
            model_of(lightning, on_train_epoch_end=on_train_epoch_end), loader()
        )
    assert told(execution)[0].startswith("Epoch 1/3: loss=")


def test_a_catalog_that_is_gone_ends_no_training(
    ml: DerivaML, execution: Execution, lightning: ModuleType, line: Line
) -> None:
    """With the line cut from the first batch on, all epochs are trained, to the same weights, and told later."""
    bare, recorded = model_of(lightning), model_of(lightning, on_train_start=lambda _: setattr(line, "is_cut", True))
    torch.manual_seed(7)
    trainer_of(lightning).fit(bare, loader())
    torch.manual_seed(7)
    with execution:
        trainer = trainer_of(lightning, callback(execution, checkpoints="all", upload="never"))
        trainer.fit(recorded, loader())
        line.is_cut = False
    assert trainer.current_epoch == 3
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())
    assert len(told(execution)) == 3
    execution.upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 3


def test_an_upload_that_fails_at_the_end_raises_when_the_training_is_done(
    ml: DerivaML, execution: Execution, lightning: ModuleType, line: Line
) -> None:
    """The fit's upload raises where the catalog is gone; all epochs are trained, and all is sent later."""
    with pytest.raises(UploadFailed), execution:
        trainer = trainer_of(lightning, callback(execution, checkpoints="all"))
        trainer.fit(model_of(lightning, on_train_start=lambda _: setattr(line, "is_cut", True)), loader())
    assert trainer.current_epoch == 3
    line.is_cut = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 3


def test_a_full_disk_ends_no_training(
    execution: Execution, lightning: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that cannot be written is warned about and forgotten; the epochs go on."""

    def on_save_checkpoint(_: Any, checkpoint: dict[str, Any]) -> None:
        if checkpoint["epoch"] == 1:
            raise OSError("No space left on device")

    with execution:
        trainer_of(lightning, callback(execution, checkpoints="all", upload="never")).fit(
            model_of(lightning, on_save_checkpoint=on_save_checkpoint), loader()
        )
    staged = [asset.filename for asset in execution.staged_assets() if asset.table == "Model"]
    assert staged == ["epoch-0001.ckpt", "epoch-0003.ckpt"]
    assert len(told(execution)) == 3
    assert "No space left on device" in caplog.text


def test_two_processes_make_one_record(ml: DerivaML, home: Path, lightning: ModuleType) -> None:
    """Under DDP, with metrics that all ranks compute together, nobody hangs and each epoch is told once."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ddp_training.py"), lightning.__name__],
        env={**os.environ, "DERIVA_ML_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    execution = ml.lookup_execution(done.stdout.split()[-1])
    assert [message.partition(" (")[0] for message in (s.message for s in execution.list_statuses()) if message] == [
        "Epoch 1/2: loss=1, rank=0.5",
        "Epoch 2/2: loss=1, rank=0.5",
    ]
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]


def test_the_integration_says_what_it_lacks() -> None:
    """Where neither package is installed, importing the integration says which one to install."""
    program = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
import deriva_ml_lightning
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'deriva-ml-core[lightning]'" in done.stderr
