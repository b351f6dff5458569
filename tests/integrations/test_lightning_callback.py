"""`DerivaMLCallback` in real Lightning fits, with both packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_helpers import CatalogLink, outputs, status_messages

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightning_helpers import (  # noqa: E402
    IGNORED,
    create_model,
    create_trainer,
    execution_callback,
    list_progress,
    training_loader,
    validation_loader,
)

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import UploadFailed  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


def test_fit_is_recorded(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """Each epoch has a status with its metrics and a checkpoint with the weights; the end uploads all."""
    model = create_model(package)
    with execution:
        create_trainer(package, execution_callback(execution, checkpoints="all")).fit(
            model, training_loader(), validation_loader()
        )
        assert execution.staged_assets() == []
    assert execution.status is Status.completed
    assert [message.partition(": ")[0] for message in status_messages(execution)] == [
        "Epoch 1/3",
        "Epoch 2/3",
        "Epoch 3/3",
    ]
    assert [(each.epoch, each.epochs, each.step) for each in list_progress(execution)] == [
        (1, 3, 4),
        (2, 3, 8),
        (3, 3, 12),
    ]
    assert [set(each.metrics) for each in list_progress(execution)] == [{"loss", "val_loss"}] * 3
    checkpoints = outputs(ml, execution, "Model")
    assert list(checkpoints) == ["epoch-0001.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt"]
    last = torch.load(execution.download_asset(checkpoints["epoch-0003.ckpt"]), weights_only=False)
    assert all(torch.equal(last["state_dict"][name], weight) for name, weight in model.state_dict().items())
    assert "metrics.jsonl" in outputs(ml, execution, "Execution_Metadata")


@pytest.mark.parametrize("ours_first", [True, pytest.param(False, marks=pytest.mark.long)])
def test_trainer_accepts_callback_without_list(home: Path, package: ModuleType, ours_first: bool) -> None:
    """``Trainer(callbacks=callback)`` requires its package's class; importing does not load the other package."""
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


def test_weights_are_identical(execution: Execution, package: ModuleType) -> None:
    """With the same seed, a fit with the callback ends in bit-identical weights as one without."""
    bare, recorded = create_model(package), create_model(package)
    torch.manual_seed(7)
    create_trainer(package).fit(bare, training_loader(), validation_loader())
    torch.manual_seed(7)
    with execution:
        create_trainer(package, execution_callback(execution)).fit(recorded, training_loader(), validation_loader())
    assert len(status_messages(execution)) == 3
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())


def test_sanity_check_is_not_recorded(execution: Execution, lightning: ModuleType) -> None:
    """The validation before the first epoch leaves no status, checkpoint or metric."""
    seen: list[int] = []

    def on_train_start(_: Any) -> None:
        seen.append(
            len(status_messages(execution))
            + sum(asset.filename != "training.json" for asset in execution.staged_assets())
        )

    with execution:
        trainer = create_trainer(
            lightning, execution_callback(execution, upload="never"), max_epochs=1, num_sanity_val_steps=2
        )
        trainer.fit(create_model(lightning, on_train_start=on_train_start), training_loader(), validation_loader())
    assert seen == [0]
    assert len(status_messages(execution)) == 1


def test_metrics_belong_to_their_epoch(execution: Execution, lightning: ModuleType) -> None:
    """Metrics logged in ``on_train_epoch_end`` belong to that epoch, and no value is repeated in another."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("ended", float(self.current_epoch + 1))

    with execution:
        trainer = create_trainer(
            lightning, execution_callback(execution, upload="never"), max_epochs=4, check_val_every_n_epoch=2
        )
        trainer.fit(
            create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader(), validation_loader()
        )
    metrics = [each.metrics for each in list_progress(execution)]
    assert [each["ended"] for each in metrics] == [1.0, 2.0, 3.0, 4.0]
    assert ["val_loss" in each for each in metrics] == [False, True, False, True]


def test_nan_is_recorded(execution: Execution, lightning: ModuleType) -> None:
    """A NaN loss is recorded as NaN, and training continues."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("broken", float("nan"))

    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), max_epochs=2).fit(
            create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader()
        )
    assert ["broken=nan" in message for message in status_messages(execution)] == [True, True]


def test_unknown_number_of_epochs(execution: Execution, lightning: ModuleType) -> None:
    """With ``max_steps`` only, no status has a number of epochs."""
    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), max_epochs=-1, max_steps=8).fit(
            create_model(lightning), training_loader()
        )
    assert [message.partition(":")[0] for message in status_messages(execution)] == ["Epoch 1", "Epoch 2"]


def test_fit_resumes_from_checkpoint(
    ml: DerivaML, new_execution: Callable[[], Execution], lightning: ModuleType
) -> None:
    """A new fit resumes from a recorded checkpoint with the following epoch."""
    with new_execution() as first:
        create_trainer(lightning, execution_callback(first), max_epochs=2).fit(
            create_model(lightning), training_loader()
        )
    with new_execution() as second:
        checkpoint = second.download_asset(outputs(ml, first, "Model")["epoch-0002.ckpt"])
        create_trainer(lightning, execution_callback(second, checkpoints="all"), max_epochs=4).fit(
            create_model(lightning), training_loader(), ckpt_path=str(checkpoint), weights_only=False
        )
    assert [message.partition(":")[0] for message in status_messages(second)] == ["Epoch 3/4", "Epoch 4/4"]
    assert list(outputs(ml, second, "Model")) == ["epoch-0003.ckpt", "epoch-0004.ckpt"]
    assert [asset.filename for asset in second.list_assets("Input")] == ["epoch-0002.ckpt"]


def test_model_checkpoint_files_stay(execution: Execution, lightning: ModuleType, tmp_path: Path) -> None:
    """A ModelCheckpoint keeps its files and its best path after the fit."""
    own = lightning.callbacks.ModelCheckpoint(dirpath=tmp_path / "own", monitor="val_loss", save_top_k=1)
    with execution:
        trainer = create_trainer(lightning, execution_callback(execution), own, enable_checkpointing=True)
        trainer.fit(create_model(lightning), training_loader(), validation_loader())
        assert Path(own.best_model_path).is_file()
        trainer.validate(ckpt_path="best", dataloaders=validation_loader(), verbose=False, weights_only=False)
    assert [message.partition(":")[0] for message in status_messages(execution)][3:] == ["Validation"]


@pytest.mark.parametrize(("which", "names"), [("none", []), ("all", ["epoch-0002.ckpt", "epoch-0004.ckpt"])])
def test_save_every_n_epochs(execution: Execution, lightning: ModuleType, which: str, names: list[str]) -> None:
    """``save_every_n_epochs`` sets the interval, and ``checkpoints="none"`` keeps no checkpoint."""
    with execution:
        one = execution_callback(execution, checkpoints=which, save_every_n_epochs=2, upload="never")
        create_trainer(lightning, one, max_epochs=4).fit(create_model(lightning), training_loader())
    assert [asset.filename for asset in execution.staged_assets() if asset.table == "Model"] == names


def test_checkpoint_table_and_types(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """``checkpoint_table`` and ``checkpoint_types`` apply to Lightning checkpoints."""
    with execution:
        one = execution_callback(
            execution, checkpoint_table="Execution_Asset", checkpoint_types=["Model_File", "Derived"]
        )
        create_trainer(lightning, one, max_epochs=1).fit(create_model(lightning), training_loader())
    asset = outputs(ml, execution, "Execution_Asset")["epoch-0001.ckpt"]
    assert set(asset.asset_types) == {"Model_File", "Derived", "Best_Checkpoint", "Last_Checkpoint"}


def test_upload_never(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """With ``upload="never"`` all files stay staged until the user uploads them."""
    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), max_epochs=1).fit(
            create_model(lightning), training_loader()
        )
    assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt"]


def test_failure_keeps_earlier_epochs(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """An exception in epoch 3 fails the run with its reason; two epochs are recorded and ready to upload."""

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("the data ran out")

    with pytest.raises(RuntimeError), execution:
        create_trainer(lightning, execution_callback(execution, checkpoints="all")).fit(
            create_model(lightning, on_train_epoch_start=on_train_epoch_start), training_loader()
        )
    assert execution.status is Status.failed
    assert "the data ran out" in execution.status_detail
    assert [message.partition(":")[0] for message in status_messages(execution)[:2]] == ["Epoch 1/3", "Epoch 2/3"]
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]


def test_epoch_that_fails_at_its_end_is_recorded(execution: Execution, lightning: ModuleType) -> None:
    """An exception in ``on_train_epoch_end`` does not hide the epoch just trained."""

    def on_train_epoch_end(_: Any) -> None:
        raise RuntimeError("at the end")

    with pytest.raises(RuntimeError), execution:
        create_trainer(lightning, execution_callback(execution)).fit(
            create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader()
        )
    assert status_messages(execution)[0].startswith("Epoch 1/3: loss=")


def test_training_survives_catalog_outage(
    ml: DerivaML, execution: Execution, lightning: ModuleType, catalog_link: CatalogLink
) -> None:
    """With the catalog unreachable, all epochs are trained to the same weights and recorded later."""
    bare, recorded = (
        create_model(lightning),
        create_model(lightning, on_train_start=lambda _: setattr(catalog_link, "is_down", True)),
    )
    torch.manual_seed(7)
    create_trainer(lightning).fit(bare, training_loader())
    torch.manual_seed(7)
    with execution:
        trainer = create_trainer(lightning, execution_callback(execution, checkpoints="all", upload="never"))
        trainer.fit(recorded, training_loader())
        catalog_link.is_down = False
    assert trainer.current_epoch == 3
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())
    assert len(status_messages(execution)) == 3
    execution.upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 3


def test_failed_upload_raises_after_training(
    ml: DerivaML, execution: Execution, lightning: ModuleType, catalog_link: CatalogLink
) -> None:
    """With the catalog unreachable, the upload of the fit raises; all epochs are trained and uploaded later."""
    with pytest.raises(UploadFailed), execution:
        trainer = create_trainer(lightning, execution_callback(execution, checkpoints="all"))
        trainer.fit(
            create_model(lightning, on_train_start=lambda _: setattr(catalog_link, "is_down", True)), training_loader()
        )
    assert trainer.current_epoch == 3
    catalog_link.is_down = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 3


def test_training_survives_full_disk(
    execution: Execution, lightning: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that cannot be written is warned about and discarded; training continues."""

    def on_save_checkpoint(_: Any, checkpoint: dict[str, Any]) -> None:
        if checkpoint["epoch"] == 1:
            raise OSError("No space left on device")

    with execution:
        create_trainer(lightning, execution_callback(execution, checkpoints="all", upload="never")).fit(
            create_model(lightning, on_save_checkpoint=on_save_checkpoint), training_loader()
        )
    staged = [asset.filename for asset in execution.staged_assets() if asset.table == "Model"]
    assert staged == ["epoch-0001.ckpt", "epoch-0003.ckpt"]
    assert len(status_messages(execution)) == 3
    assert "No space left on device" in caplog.text


def test_ddp_spawn_records_once(ml: DerivaML, home: Path, lightning: ModuleType) -> None:
    """Under DDP, with metrics that all ranks compute together, no rank hangs and each epoch is recorded once."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ddp_spawn_program.py"), lightning.__name__],
        env={**os.environ, "DERIVA_ML_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    execution = ml.lookup_execution(done.stdout.split()[-1])
    assert [message.partition(" (")[0] for message in (s.message for s in execution.list_statuses()) if message] == [
        "Epoch 1/2: loss=1, rank=0.5",
        "Epoch 2/2: loss=1, rank=0.5",
    ]
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]


def test_missing_package_error() -> None:
    """Without both packages, importing the integration names the package to install."""
    program = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
import deriva_ml_lightning
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'deriva-ml-core[lightning]'" in done.stderr


def test_public_names(execution: Execution, package: ModuleType) -> None:
    """The callback adds ``execution`` and the calls that log media to the public names of a Lightning callback."""
    callback, base = execution_callback(execution), package.Callback()
    assert {name for name in dir(callback) if not name.startswith("_")} - set(dir(base)) == {
        "execution",
        "log_figure",
        "log_image",
        "log_table",
    }


def test_media_have_the_position_of_the_trainer(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """Images that hooks log through the callback have fit, epoch and step; outside of a fit only the step."""
    callback = execution_callback(execution, checkpoints="none")
    pixels = torch.zeros(3, 4, 4)

    class Images(package.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, *_: Any) -> None:
            callback.log_image("batch", pixels)

        def on_validation_epoch_end(self, *_: Any) -> None:
            callback.log_image("validation", pixels)

        def on_train_end(self, *_: Any) -> None:
            callback.log_table("end", [{"a": 1}])

        def on_test_end(self, *_: Any) -> None:
            callback.log_image("test", pixels)
            callback.log_image("explicit", pixels, 70, epoch=7)

    model = create_model(package, test_step=lambda self, batch, index: None)
    with execution:
        trainer = create_trainer(package, callback, Images(), max_epochs=2, limit_train_batches=1)
        trainer.fit(model, training_loader(), validation_loader())
        trainer.test(model, validation_loader(), verbose=False)
    media = ml.lookup_execution(execution.execution_rid).list_media()
    assert [(each.name, each.fit, each.epoch, each.step) for each in media] == [
        ("validation", None, 1, 0),  # the sanity check before the fit
        ("batch", 1, 1, 1),
        ("validation", 1, 1, 1),
        ("batch", 1, 2, 2),
        ("validation", 1, 2, 2),
        ("end", 1, 2, 2),
        ("test", None, None, 2),
        ("explicit", None, 7, 70),
    ]
    assert all(each.asset for each in media[:6])  # uploaded at the end of the fit


def test_media_of_a_copied_callback(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """A copy of a callback knows no Trainer, and logging before any training is only a warning."""
    import copy

    callback = execution_callback(execution)
    create_trainer(package, callback, max_epochs=1).fit(create_model(package), training_loader())
    copied = copy.deepcopy(callback)
    with execution:
        copied.log_image("i", torch.zeros(2, 2))
    assert [(each.name, each.step) for each in execution.list_media()] == [("i", None)]
