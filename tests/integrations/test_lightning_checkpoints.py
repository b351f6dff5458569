"""Checkpoints of Lightning fits: those of the Trainer's ModelCheckpoints, and those of the option ``checkpoints``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest
from training_helpers import outputs, status_messages

from waits import HANG

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightning_helpers import (  # noqa: E402
    IGNORED,
    create_model,
    create_trainer,
    execution_callback,
    own_callback,
    training_loader,
    validation_loader,
)

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import ConfigurationError  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = [*IGNORED, pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")]


@pytest.fixture(autouse=True)
def _root_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Trainers write into a folder of the test, since their default is the current folder."""
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")


def fit(package: ModuleType, *callbacks: Any, **options: Any) -> Any:
    """Fit four epochs with validation, with the Trainer's own checkpoints enabled, and return the Trainer."""
    ckpt_path = options.pop("ckpt_path", None)
    trainer = create_trainer(package, *callbacks, **{"enable_checkpointing": True, "max_epochs": 4} | options)
    trainer.fit(create_model(package), training_loader(), validation_loader(), ckpt_path=ckpt_path, weights_only=False)
    return trainer


def staged_names(execution: Execution) -> set[str]:
    return {asset.filename for asset in execution.staged_assets() if asset.table == "Model"}


def recorded_types(ml: DerivaML, execution: Execution) -> dict[str, set[str]]:
    return {name: set(asset.asset_types) - {"Model_File"} for name, asset in outputs(ml, execution, "Model").items()}


def test_model_checkpoints_are_recorded(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """A ModelCheckpoint writes where Lightning puts its files, which stay; deleted ones are not uploaded."""
    own = package.callbacks.ModelCheckpoint(monitor="val_loss", save_top_k=2, save_last=True, filename="{epoch}")
    with execution:
        fit(package, execution_callback(execution, upload="never"), own)
        assert Path(own.dirpath) == Path.cwd() / "checkpoints"
        best_names = {Path(path).name for path in own.best_k_models}
        assert staged_names(execution) == {*best_names, "last.ckpt"}
        execution.upload_execution_outputs()
    best = Path(own.best_model_path).name
    assert recorded_types(ml, execution) == {
        name: {"Best_Checkpoint"} if name == best else {"Last_Checkpoint"} if name == "last.ckpt" else set()
        for name in {*best_names, "last.ckpt"}
    }
    kept = {path.name: path for path in Path("checkpoints").iterdir()}
    assert set(kept) == {*best_names, "last.ckpt"}
    for path in kept.values():
        assert path.stat().st_nlink == 1  # shared with no object
        assert torch.load(path, weights_only=False)["state_dict"]


def test_files_stay_where_the_framework_names_them(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """After the ``with`` and an upload, the Trainer finds its best and last files, of a relative root folder too."""
    own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", save_last=True, filename="{epoch}")
    with execution:
        trainer = fit(lightning, execution_callback(execution), own, default_root_dir="runs")
    execution.upload_execution_outputs(clean_folder=True)
    assert set(recorded_types(ml, execution)) == {Path(own.best_model_path).name, "last.ckpt"}
    for which in ("best", "last"):
        trainer.validate(dataloaders=validation_loader(), ckpt_path=which, verbose=False, weights_only=False)
    assert {path.name for path in Path("runs/checkpoints").iterdir()} == set(recorded_types(ml, execution))


def test_superseded_files_are_not_copied(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """Of a ModelCheckpoint's files, the store gets those that it keeps, and no byte of those that it deletes."""
    own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", save_top_k=1, filename="{epoch}")
    objects = ml.connection.folder / "objects"
    before = {path for path in objects.rglob("*") if path.is_file()}
    saved: list[int] = []

    def on_train_epoch_end(_: Any) -> None:
        saved.append(len({path for path in objects.rglob("*") if path.is_file()} - before))

    with execution:
        trainer = create_trainer(lightning, execution_callback(execution), own, enable_checkpointing=True, max_epochs=4)
        model = create_model(lightning, on_train_epoch_end=on_train_epoch_end)
        trainer.fit(model, training_loader(), validation_loader())
    new_bytes = sum(path.stat().st_size for path in objects.rglob("*") if path.is_file() and path not in before)
    kept_bytes = sum(path.stat().st_size for path in Path("checkpoints").iterdir())
    records = sum(each.length for each in execution.list_assets("Output") if each.table != "Model")
    assert saved == [0, 0, 0, 0]
    assert new_bytes - records <= kept_bytes


def test_best_of_all_folds(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """Of the files of all folds, the one with the best score is the best, and that of the last fold is the last."""
    scores, names = [], []
    with execution:
        for number, start in enumerate((0.5, 3.0, 5.0)):

            def on_train_start(self: Any, start: float = start) -> None:
                for each in self.parameters():
                    each.data.fill_(start)

            own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", filename=f"fold-{number}")
            trainer = create_trainer(
                lightning, execution_callback(execution), own, enable_checkpointing=True, max_epochs=1
            )
            trainer.fit(create_model(lightning, on_train_start=on_train_start), training_loader(), validation_loader())
            scores.append(float(own.best_model_score))
            names.append(Path(own.best_model_path).name)
    assert scores == sorted(scores)
    assert recorded_types(ml, execution) == {
        names[0]: {"Best_Checkpoint"},
        names[1]: set(),
        names[2]: {"Last_Checkpoint"},
    }


def test_same_name_in_many_folders(execution: Execution, lightning: ModuleType) -> None:
    """Files of one name in the folders of several fits are all staged, under names that say the folder."""
    with execution:
        for number in range(3):
            own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", filename="model")
            one = execution_callback(execution, upload="never")
            fit(lightning, one, own, default_root_dir=f"fold-{number}", max_epochs=1)
    assert staged_names(execution) == {"model.ckpt", "checkpoints/model.ckpt", "fold-2/checkpoints/model.ckpt"}


def test_default_trainer_checkpoint(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """The one checkpoint of a default Trainer is recorded and not copied, and stays readable where it is."""
    with execution:
        trainer = fit(lightning, execution_callback(execution))
        path = Path(trainer.checkpoint_callback.best_model_path)
        assert path.is_relative_to(execution.working_dir)
    execution.upload_execution_outputs(clean_folder=True)
    assert path.stat().st_nlink == 2  # one name here, one in the store
    assert torch.load(path, weights_only=False)["state_dict"]
    assert recorded_types(ml, execution) == {path.name: {"Last_Checkpoint"}}


def test_user_dirpath_is_respected(ml: DerivaML, execution: Execution, lightning: ModuleType, tmp_path: Path) -> None:
    """With ``dirpath``, files stay in that folder; those present at the end are uploaded."""
    own = lightning.callbacks.ModelCheckpoint(dirpath=tmp_path / "mine", monitor="val_loss", save_top_k=1)
    with execution:
        fit(lightning, execution_callback(execution), own)
    assert [Path(own.best_model_path)] == list((tmp_path / "mine").iterdir())
    assert recorded_types(ml, execution) == {Path(own.best_model_path).name: {"Best_Checkpoint", "Last_Checkpoint"}}


@pytest.mark.parametrize("where", [None, "mine"])
def test_last_checkpoint_as_link(
    ml: DerivaML, execution: Execution, lightning: ModuleType, tmp_path: Path, where: str | None
) -> None:
    """``save_last="link"`` makes no file of its own; its target has the type of the last."""
    own = lightning.callbacks.ModelCheckpoint(
        dirpath=where and tmp_path / where, monitor="val_loss", save_top_k=-1, save_last="link", filename="{epoch}"
    )
    with execution:
        fit(lightning, execution_callback(execution), own)
    types = recorded_types(ml, execution)
    assert set(types) == {f"epoch={epoch}.ckpt" for epoch in range(4)}
    assert "Last_Checkpoint" in types["epoch=3.ckpt"]
    assert Path(own.last_model_path).is_symlink()


def test_two_model_checkpoints(ml: DerivaML, execution: Execution, lightning: ModuleType, tmp_path: Path) -> None:
    """Files of the same name of two ModelCheckpoints in different folders are both recorded."""
    kind = lightning.callbacks.ModelCheckpoint
    by_loss = kind(tmp_path / "one", monitor="val_loss", filename="model")
    by_epoch = kind(tmp_path / "two", every_n_epochs=1, filename="model", enable_version_counter=False)
    with execution:
        fit(lightning, execution_callback(execution), by_loss, by_epoch)
    assert set(recorded_types(ml, execution)) == {"model.ckpt", "two/model.ckpt"}


def test_stream_uploads_final_checkpoints(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """With ``save_top_k=-1`` and streaming, files of earlier epochs are uploaded during training."""
    own = lightning.callbacks.ModelCheckpoint(save_top_k=-1, filename="{epoch}")
    one = execution_callback(execution, upload="stream")
    seen: list[set[str]] = []

    def on_train_end(_: Any) -> None:
        one._reporter._worker.drain(60)
        seen.append(set(outputs(ml, execution, "Model")))

    with execution:
        trainer = create_trainer(lightning, one, own, enable_checkpointing=True)
        trainer.fit(create_model(lightning, on_train_end=on_train_end), training_loader())
    assert seen == [{"epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"}]


def test_checkpoints_option_ignores_model_checkpoints(
    ml: DerivaML, execution: Execution, lightning: ModuleType, tmp_path: Path
) -> None:
    """With ``checkpoints="last"``, a ModelCheckpoint works unchanged and is not recorded."""
    own = lightning.callbacks.ModelCheckpoint(save_top_k=1, filename="user")
    with execution:
        fit(lightning, execution_callback(execution, checkpoints="last"), own, default_root_dir=tmp_path)
    assert recorded_types(ml, execution) == {"epoch-0004.ckpt": {"Last_Checkpoint"}}
    assert Path(own.best_model_path) == tmp_path / "checkpoints" / "user.ckpt"
    assert Path(own.best_model_path).is_file()


@pytest.mark.parametrize("by_option", [True, False])
def test_async_checkpoint_io(ml: DerivaML, execution: Execution, package: ModuleType, by_option: bool) -> None:
    """With AsyncCheckpointIO, each file is recorded once complete, for the option and for a ModelCheckpoint."""
    model_checkpoints = (
        () if by_option else (package.callbacks.ModelCheckpoint(monitor="val_loss", filename="{epoch}"),)
    )
    with execution:
        trainer = fit(
            package,
            execution_callback(execution),
            *model_checkpoints,
            plugins=[package.plugins.io.AsyncCheckpointIO()],
            enable_checkpointing=not by_option,
        )
    types = recorded_types(ml, execution)
    assert types
    assert {"Best_Checkpoint", "Last_Checkpoint"} == set().union(*types.values())
    assert type(trainer.strategy.checkpoint_io.checkpoint_io).__name__ == "TorchCheckpointIO"
    for asset in outputs(ml, execution, "Model").values():
        assert torch.load(execution.download_asset(asset), weights_only=False)["state_dict"]


def test_failure_waits_for_async_save(ml: DerivaML, lightning: ModuleType) -> None:
    """A checkpoint still being written in the background when training fails is completed and uploaded."""
    release = Event()
    one = own_callback(ml)

    class Slow(lightning.plugins.io.TorchCheckpointIO):
        def save_checkpoint(self, *args: Any, storage_options: Any = None) -> None:
            assert release.wait(HANG)
            super().save_checkpoint(*args, storage_options=storage_options)

    class Releasing(lightning.Callback):
        def on_exception(self, *_: Any) -> None:
            assert not any((one.execution.working_dir / "outputs" / "Model").iterdir())
            release.set()

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("stop")

    plugin = lightning.plugins.io.AsyncCheckpointIO(Slow())
    trainer = create_trainer(lightning, Releasing(), one, plugins=[plugin])
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(create_model(lightning, on_train_epoch_start=on_train_epoch_start), training_loader())
    assert recorded_types(ml, one.execution) == {"epoch-0001.ckpt": {"Best_Checkpoint", "Last_Checkpoint"}}


def test_failure_waits_for_async_save_without_a_thread(
    ml: DerivaML, lightning: ModuleType, refuse_threads: Callable[[int], None]
) -> None:
    """If the system refuses the thread that waits for a background save, the checkpoint is completed and uploaded."""
    one = own_callback(ml)

    class Refusing(lightning.Callback):
        def on_exception(self, *_: Any) -> None:
            refuse_threads(1)

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("stop")

    plugin = lightning.plugins.io.AsyncCheckpointIO()
    trainer = create_trainer(lightning, Refusing(), one, plugins=[plugin])
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(create_model(lightning, on_train_epoch_start=on_train_epoch_start), training_loader())
    assert recorded_types(ml, one.execution) == {"epoch-0001.ckpt": {"Best_Checkpoint", "Last_Checkpoint"}}


def test_checkpoint_removed_before_async_write(execution: Execution, lightning: ModuleType) -> None:
    """A file that a ModelCheckpoint removes before its background write begins is not uploaded."""
    removed = Event()

    class Slow(lightning.plugins.io.TorchCheckpointIO):
        def save_checkpoint(self, *args: Any, storage_options: Any = None) -> None:
            assert removed.wait(HANG)
            super().save_checkpoint(*args, storage_options=storage_options)

        def remove_checkpoint(self, path: Any) -> None:
            super().remove_checkpoint(path)
            removed.set()

    own = lightning.callbacks.ModelCheckpoint(filename="{epoch}")
    with execution:
        plugin = lightning.plugins.io.AsyncCheckpointIO(Slow())
        fit(lightning, execution_callback(execution, upload="never"), own, plugins=[plugin], max_epochs=2)
    assert staged_names(execution) == {"epoch=1.ckpt"}


@pytest.mark.parametrize("by_option", [True, False])
def test_strategy_without_checkpoint_io(
    ml: DerivaML, execution: Execution, lightning: ModuleType, by_option: bool
) -> None:
    """Checkpoints written without a CheckpointIO, as by sharding strategies, are recorded."""

    class Sharding(lightning.strategies.SingleDeviceStrategy):
        def save_checkpoint(self, checkpoint: Any, filepath: Any, storage_options: Any = None) -> None:
            (Path(filepath) / "deep").mkdir(parents=True)
            torch.save(checkpoint, Path(filepath) / "deep" / "shard.pt")

        def remove_checkpoint(self, filepath: Any) -> None:
            import shutil

            shutil.rmtree(filepath)

    model_checkpoints = (
        () if by_option else (lightning.callbacks.ModelCheckpoint(monitor="val_loss", filename="{epoch}"),)
    )
    with execution:
        fit(
            lightning,
            execution_callback(execution, checkpoints="last" if by_option else None),
            *model_checkpoints,
            strategy=Sharding("cpu"),
            accelerator="auto",
            enable_checkpointing=not by_option,
        )
    ((name, types),) = recorded_types(ml, execution).items()
    assert (name.endswith(".ckpt/deep/shard.pt"), "Last_Checkpoint" in types) == (True, True)


def test_save_on_exception(ml: DerivaML, lightning: ModuleType) -> None:
    """A file saved by ``save_on_exception`` is recorded, since an owned execution ends after it."""
    own = lightning.callbacks.ModelCheckpoint(save_on_exception=True, filename="{step}", every_n_epochs=9)
    one = own_callback(ml)

    def on_train_batch_start(self: Any, batch: Any, number: int) -> None:
        if self.global_step == 2:
            raise RuntimeError("stop")

    trainer = create_trainer(lightning, one, own, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(create_model(lightning, on_train_batch_start=on_train_batch_start), training_loader())
    assert one.execution.status is Status.failed
    assert recorded_types(ml, one.execution) == {"step=2.ckpt": {"Last_Checkpoint"}}


def folder_io(package: ModuleType) -> Any:
    """Return a CheckpointIO that writes each checkpoint as a folder, as sharded ones are."""
    from torch.distributed import checkpoint as distributed

    class FolderIO(package.plugins.io.CheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            distributed.save(checkpoint["state_dict"], checkpoint_id=path, no_dist=True)
            (Path(path) / "more").mkdir()
            rest = {name: part for name, part in checkpoint.items() if name != "state_dict"}
            torch.save(rest, Path(path) / "more" / "rest.pt")

        def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
            rest = torch.load(Path(path) / "more" / "rest.pt", weights_only=False)
            state = create_model(package).state_dict()
            distributed.load(state, checkpoint_id=path, no_dist=True)
            return {**rest, "state_dict": state}

        def remove_checkpoint(self, path: Any) -> None:
            import shutil

            shutil.rmtree(path)

    return FolderIO()


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch.distributed")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:torch.distributed")
@pytest.mark.parametrize("which", ["option", "ModelCheckpoint", "the user's folder"])
def test_sharded_checkpoints(
    ml: DerivaML, execution: Execution, lightning: ModuleType, tmp_path: Path, which: str
) -> None:
    """The files of a sharded checkpoint keep their relative names, and a fit resumes from the same tree."""
    folder = tmp_path / "mine" if which == "the user's folder" else None
    own = lightning.callbacks.ModelCheckpoint(dirpath=folder, monitor="val_loss", filename="{epoch}")
    with execution:
        trainer = fit(
            lightning,
            execution_callback(execution, checkpoints="last" if which == "option" else None),
            *(() if which == "option" else (own,)),
            plugins=[folder_io(lightning)],
            enable_checkpointing=which != "option",
        )
    name = "epoch-0004.ckpt" if which == "option" else Path(own.best_model_path).name
    assets = outputs(ml, execution, "Model")
    assert set(assets) == {f"{name}/{part}" for part in (".metadata", "__0_0.distcp", "more/rest.pt")}
    assert all("Last_Checkpoint" in asset.asset_types for asset in assets.values())
    for filename, asset in assets.items():
        place = tmp_path / "again" / filename
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(execution.download_asset(asset).read_bytes())
    trainer = create_trainer(lightning, plugins=[folder_io(lightning)], max_epochs=6)
    trainer.fit(create_model(lightning), training_loader(), ckpt_path=str(tmp_path / "again" / name))
    assert trainer.current_epoch == 6


def test_checkpoint_io_is_restored(execution: Execution, package: ModuleType) -> None:
    """After a fit, and after a failure, the Trainer has its original CheckpointIO."""
    kinds: list[str] = []

    def on_train_epoch_end(self: Any) -> None:
        kinds.append(type(self.trainer.strategy.checkpoint_io).__name__)
        if self.current_epoch == 1:
            raise RuntimeError("stop")

    trainer = create_trainer(package, execution_callback(execution, upload="never"))
    with pytest.raises(RuntimeError, match="stop"), execution:
        trainer.fit(create_model(package, on_train_epoch_end=on_train_epoch_end), training_loader())
    assert kinds == ["RecordedCheckpointIO"] * 2
    assert type(trainer.strategy.checkpoint_io) is package.plugins.io.TorchCheckpointIO


@pytest.mark.parametrize("by_option", [True, False])
def test_checkpoint_io_false(
    execution: Execution, lightning: ModuleType, monkeypatch: pytest.MonkeyPatch, by_option: bool
) -> None:
    """With ``checkpoint_io=False``, Lightning's own CheckpointIO writes the files, and they are recorded."""
    written: list[str] = []
    kind = lightning.plugins.io.TorchCheckpointIO
    save = kind.save_checkpoint

    def save_checkpoint(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        written.append(Path(path).name)
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(kind, "save_checkpoint", save_checkpoint)
    with execution:
        fit(
            lightning,
            execution_callback(execution, checkpoint_io=by_option, upload="never"),
            enable_checkpointing=False,
        )
    assert (written == []) is by_option
    assert "epoch-0004.ckpt" in staged_names(execution)


def test_remote_path_uses_original_checkpoint_io(execution: Execution, lightning: ModuleType) -> None:
    """A remote path is written by Lightning, which also refuses storage options."""
    import fsspec

    def on_train_end(self: Any) -> None:
        self.trainer.save_checkpoint("memory://elsewhere/model.ckpt")
        with pytest.raises(TypeError, match="storage_options"):
            self.trainer.save_checkpoint("model.ckpt", storage_options={"a": 1})

    with execution:
        one = execution_callback(execution, checkpoints="none", upload="never")
        create_trainer(lightning, one).fit(create_model(lightning, on_train_end=on_train_end), training_loader())
    assert fsspec.filesystem("memory").exists("/elsewhere/model.ckpt")
    assert staged_names(execution) == set()


def worsening_model(package: ModuleType) -> Any:
    """Return a model whose weights are reset at the start, so that no later epoch is as good as earlier ones."""
    return create_model(
        package, on_train_start=lambda self: [each.data.fill_(5) for each in self.parameters()] and None
    )


def test_resume_linked(ml: DerivaML, new_execution: Callable[[], Execution], package: ModuleType) -> None:
    """The checkpoint is an input of the new run; its best value counts, and files of the old run stay."""
    kind = package.callbacks.ModelCheckpoint
    with new_execution() as first:
        own = kind(monitor="val_loss", filename="{epoch}")
        fit(package, execution_callback(first), own, max_epochs=2)
        path, score = own.best_model_path, own.best_model_score
        with new_execution() as second:
            again = kind(monitor="val_loss", filename="{epoch}", save_last=True)
            trainer = create_trainer(
                package, execution_callback(second), again, enable_checkpointing=True, max_epochs=3
            )
            trainer.fit(
                worsening_model(package), training_loader(), validation_loader(), ckpt_path=path, weights_only=False
            )
            assert Path(again.dirpath) == Path.cwd() / "checkpoints"
        assert (again.best_model_score, again.best_model_path) == (score, path)
        assert Path(path).is_file()
    assert [asset.filename for asset in second.list_assets("Input")] == [Path(path).name]
    assert next(message.partition(":")[0] for message in status_messages(second)) == "Epoch 3/3"
    assert recorded_types(ml, second) == {"last.ckpt": {"Last_Checkpoint"}}


def test_best_value_survives(ml: DerivaML, new_execution: Callable[[], Execution], lightning: ModuleType) -> None:
    """An epoch after a resume is the best only if it is better than those before."""
    with new_execution() as first:
        fit(lightning, execution_callback(first), enable_checkpointing=False, max_epochs=2)
        (path,) = (first.working_dir / "outputs" / "Model").glob("*2.ckpt")
        with new_execution() as second:
            trainer = create_trainer(lightning, execution_callback(second), max_epochs=3)
            trainer.fit(
                worsening_model(lightning),
                training_loader(),
                validation_loader(),
                ckpt_path=str(path),
                weights_only=False,
            )
    assert recorded_types(ml, second) == {"epoch-0003.ckpt": {"Last_Checkpoint"}}


def test_resume_same(ml: DerivaML, package: ModuleType) -> None:
    """With ``resume="same"``, an owned execution continues the run of the checkpoint."""
    first = own_callback(ml)
    own = package.callbacks.ModelCheckpoint(monitor="val_loss", filename="{epoch}", save_last=True)
    fit(package, first, own, max_epochs=2)
    assert first.execution.status is Status.completed
    second = own_callback(ml, resume="same")
    again = package.callbacks.ModelCheckpoint(monitor="val_loss", filename="{epoch}", save_last=True)
    fit(package, second, again, max_epochs=3, ckpt_path=own.last_model_path)
    assert second.execution.execution_rid == first.execution.execution_rid
    assert Path(again.dirpath) == Path(own.dirpath)
    assert second.execution.status is Status.completed
    messages = [message.partition(":")[0] for message in status_messages(second.execution)]
    assert [each for each in messages if each.startswith("Epoch")] == ["Epoch 1/2", "Epoch 2/2", "Epoch 3/3"]
    assert second.execution.list_assets("Input") == []


def test_checkpoint_of_another_catalog(
    ml: DerivaML, lightning: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In another catalog the RID names another row: the run does not continue, and the checkpoint is no input."""
    first = own_callback(DerivaML(f"file:{tmp_path / 'other'}"))
    own = lightning.callbacks.ModelCheckpoint()
    fit(lightning, first, own, max_epochs=1)
    linked = own_callback(ml)
    fit(lightning, linked, max_epochs=2, ckpt_path=own.best_model_path)
    assert linked.execution.execution_rid == first.execution.execution_rid
    assert linked.execution.list_assets("Input") == []
    assert "in another catalog" in caplog.text
    with pytest.raises(ConfigurationError, match="is in the catalog"):
        fit(lightning, own_callback(ml, resume="same"), max_epochs=2, ckpt_path=own.best_model_path)
    assert linked.execution.status is Status.completed


def test_best_checkpoint_is_readable_after_end(ml: DerivaML, lightning: ModuleType) -> None:
    """After an owned execution has ended and uploaded, the Trainer finds its best and last checkpoints."""
    one = own_callback(ml)
    own = lightning.callbacks.ModelCheckpoint(monitor="val_loss", save_last=True)
    trainer = fit(lightning, one, own)
    for which in ("best", "last"):
        trainer.validate(dataloaders=validation_loader(), ckpt_path=which, verbose=False, weights_only=False)
    assert one.execution.status is Status.completed
    assert [message.partition(":")[0] for message in status_messages(one.execution)][-2:] == ["Validation"] * 2
    assert one.execution.staged_assets() == []


def test_late_monitored_metric(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """A metric logged in ``on_train_epoch_end`` can decide the best epoch."""
    scores = [3.0, 1.0, 2.0]

    def on_train_epoch_end(self: Any) -> None:
        self.log("late", scores[self.current_epoch])

    with execution:
        trainer = create_trainer(lightning, execution_callback(execution, monitor="late", mode="min"))
        trainer.fit(create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader())
    assert recorded_types(ml, execution) == {
        "epoch-0002.ckpt": {"Best_Checkpoint"},
        "epoch-0003.ckpt": {"Last_Checkpoint"},
    }


def test_save_every_n_steps(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """``save_every_n_steps`` keeps checkpoints of steps, each superseding the previous."""
    with execution:
        one = execution_callback(
            execution, checkpoints="all", save_every_n_steps=3, save_every_n_epochs=2, weights_only=True
        )
        create_trainer(lightning, one, max_epochs=2).fit(create_model(lightning), training_loader())
    assets = outputs(ml, execution, "Model")
    assert set(assets) == {"step-00000003.ckpt", "step-00000006.ckpt", "epoch-0002.ckpt"}
    loaded = torch.load(execution.download_asset(assets["step-00000003.ckpt"]), weights_only=False)
    assert "optimizer_states" not in loaded


@pytest.mark.long
@pytest.mark.parametrize("resume", ["linked", "same"])
def test_ddp_resume(ml: DerivaML, home: Path, lightning: ModuleType, resume: str) -> None:
    """Under DDP, a ModelCheckpoint of each rank writes into the one execution, also after a resume."""
    script = Path(__file__).with_name("ddp_resume_program.py")
    done = subprocess.run(
        [sys.executable, script, lightning.__name__, resume],
        env={**os.environ, "DERIVA_ML_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told_by = dict(line.partition(" ")[::2] for line in done.stdout.splitlines() if line.startswith("rank"))
    assert told_by["rank0"] == told_by["rank1"]
    first, second, folder = told_by["rank0"].split()
    assert (first == second) is (resume == "same")
    execution = ml.lookup_execution(second)
    assert folder == str(home / "local" / "executions" / second / "outputs" / "Model")
    assert execution.status is Status.completed
    inputs = [asset.filename for asset in execution.list_assets("Input")]
    assert inputs == ([] if resume == "same" else ["epoch=1-step=4.ckpt"])
    assert any(message.startswith("Epoch 3/3") for message in (each.message for each in execution.list_statuses()))


def log_in_validation(**values: Callable[[int], float | None]) -> Callable[..., None]:
    """Return a ``validation_step`` that logs these functions of the epoch, from 1; None is not logged."""

    def validation_step(module: Any, batch: Any, _: int) -> None:
        for name, value in values.items():
            if (number := value(module.current_epoch + 1)) is not None:
                module.log(name, torch.tensor(float(number)))

    return validation_step


def best_and_last(execution: Execution) -> dict[str, set[str]]:
    """Return the staged checkpoints with their types other than Model_File."""
    return {
        each.filename: set(each.asset_types) - {"Model_File"}
        for each in execution.staged_assets()
        if each.table == "Model"
    }


def test_validation_every_third_epoch(execution: Execution, lightning: ModuleType) -> None:
    """With ``check_val_every_n_epoch=3``, the epoch with the best validation is the best."""
    model = create_model(lightning, validation_step=log_in_validation(val_loss=lambda epoch: epoch))
    with execution:
        callback = execution_callback(execution, upload="never")
        trainer = create_trainer(lightning, callback, max_epochs=7, check_val_every_n_epoch=3)
        trainer.fit(model, training_loader(), validation_loader())
    assert best_and_last(execution) == {"epoch-0003.ckpt": {"Best_Checkpoint"}, "epoch-0007.ckpt": {"Last_Checkpoint"}}


def test_two_validation_loaders(execution: Execution, lightning: ModuleType) -> None:
    """With several validation data sets, the first one's loss decides, and not the training loss."""

    def validation_step(module: Any, batch: Any, _: int, dataloader_idx: int) -> None:
        module.log("val_loss", torch.tensor([(3.0, 1.0, 2.0), (1.0, 2.0, 0.0)][dataloader_idx][module.current_epoch]))

    with execution:
        callback = execution_callback(execution, upload="never")
        trainer = create_trainer(lightning, callback)
        model = create_model(lightning, validation_step=validation_step)
        trainer.fit(model, training_loader(), [validation_loader(), validation_loader()])
    assert best_and_last(execution) == {"epoch-0002.ckpt": {"Best_Checkpoint"}, "epoch-0003.ckpt": {"Last_Checkpoint"}}


def test_mode_of_early_stopping(execution: Execution, lightning: ModuleType) -> None:
    """The metric and the mode of an EarlyStopping decide which checkpoint is the best."""
    logged = log_in_validation(val_loss=lambda epoch: 1 / epoch, val_wobble=lambda epoch: epoch % 3)
    stopping = lightning.callbacks.EarlyStopping("val_wobble", mode="max", patience=9)
    with execution:
        trainer = create_trainer(lightning, execution_callback(execution, upload="never"), stopping)
        trainer.fit(create_model(lightning, validation_step=logged), training_loader(), validation_loader())
    assert best_and_last(execution) == {"epoch-0002.ckpt": {"Best_Checkpoint"}, "epoch-0003.ckpt": {"Last_Checkpoint"}}
    assert execution._runtime.journal.state.metrics["fit", "val_wobble"].best == 2


def test_mode_of_torchmetrics(execution: Execution, lightning: ModuleType) -> None:
    """The direction of a logged torchmetrics object decides, where its name does not imply it."""
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

    class Wobble(torchmetrics.MeanMetric):
        higher_is_better = True

    def validation_step(module: Any, batch: Any, _: int) -> None:
        module.metric.update((1.0, 3.0, 2.0)[module.current_epoch])
        module.log("val_wobble", module.metric)

    model = create_model(lightning, validation_step=validation_step)
    model.metric = Wobble()
    with execution:
        callback = execution_callback(execution, upload="never")
        create_trainer(lightning, callback).fit(model, training_loader(), validation_loader())
        assert callback._reporter.monitor.mode == "max"
    assert best_and_last(execution) == {"epoch-0002.ckpt": {"Best_Checkpoint"}, "epoch-0003.ckpt": {"Last_Checkpoint"}}


def test_metric_logged_at_end_of_epoch(execution: Execution, lightning: ModuleType) -> None:
    """A validation metric that the module logs in its ``on_train_epoch_end`` decides from the next epoch on."""

    def on_train_epoch_end(module: Any) -> None:
        module.log("val_late", (1.0, 4.0, 2.0, 3.0)[module.current_epoch])

    with execution:
        callback = execution_callback(execution, mode="min", upload="never")
        trainer = create_trainer(lightning, callback, max_epochs=4)
        trainer.fit(
            create_model(lightning, on_train_epoch_end=on_train_epoch_end, validation_step=None), training_loader()
        )
    assert best_and_last(execution) == {"epoch-0003.ckpt": {"Best_Checkpoint"}, "epoch-0004.ckpt": {"Last_Checkpoint"}}
