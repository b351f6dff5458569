"""Which checkpoints of Keras are kept: ours, and those of the user's own callbacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_trainings import NUMPY_2, At, Losses, compiled, fit, keras, staged
from trainings import outputs

from deriva_ml import DerivaML
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback

pytestmark = [NUMPY_2]

BEST, LAST, MODEL = "Best_Checkpoint", "Last_Checkpoint", "Model_File"
LOSSES = (3.0, 1.0, 2.0)
"""The second epoch is the best."""


def recorded(execution: Execution, *callbacks: Any, **options: Any) -> DerivaMLCallback:
    """Fit three epochs with these losses, other callbacks and options of ours; nothing is sent."""
    ours = DerivaMLCallback(execution, **{"upload": "never"} | options)
    fit(compiled(), Losses(*LOSSES), *callbacks, ours)
    return ours


# Ours


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        ("best+last", {"epoch-0002.keras": {BEST}, "epoch-0003.keras": {LAST}}),
        ("best", {"epoch-0002.keras": {BEST}}),
        ("last", {"epoch-0003.keras": {LAST}}),
        ("all", {"epoch-0001.keras": set(), "epoch-0002.keras": {BEST}, "epoch-0003.keras": {LAST}}),
        ("none", {}),
    ],
)
def test_those_are_kept_that_were_asked_for(execution: Execution, which: str, kept: dict[str, set[str]]) -> None:
    """By the option ``checkpoints``, best and last told apart by their types; what is superseded is gone."""
    with execution:
        ours = recorded(execution, checkpoints=which)
    assert staged(execution) == {name: types | {MODEL} for name, types in kept.items()}
    assert {path.name for path in ours.execution.working_dir.rglob("*.keras")} == set(kept)


def test_weights_alone_are_kept_where_asked(execution: Execution) -> None:
    """``weights_only`` leaves a ``.weights.h5`` that the model takes back."""
    model = compiled()
    with execution:
        fit(model, DerivaMLCallback(execution, checkpoints="last", weights_only=True, upload="never"), epochs=1)
    assert set(staged(execution)) == {"epoch-0001.weights.h5"}
    other = compiled()
    other.load_weights(next(execution.working_dir.rglob("*.weights.h5")))
    assert [w.tolist() for w in other.get_weights()] == [w.tolist() for w in model.get_weights()]


def test_checkpoints_within_an_epoch_are_kept_where_asked(execution: Execution) -> None:
    """``save_every_n_steps`` keeps one within an epoch, with the weights of that step, until the next."""

    def fail() -> None:
        raise ZeroDivisionError

    weights: list[Any] = []
    model = compiled()
    with pytest.raises(ZeroDivisionError), execution:
        look = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: (
                weights.append([w.tolist() for w in model.get_weights()]) if batch < 3 else fail()
            )
        )
        fit(model, DerivaMLCallback(execution, save_every_n_steps=3, upload="never"), look)
    assert staged(execution) == {"step-00000003.keras": {MODEL, LAST}}
    kept = keras.models.load_model(next(execution.working_dir.rglob("*.keras")))
    assert [w.tolist() for w in kept.get_weights()] == weights[2]


def test_names_follow_the_template(execution: Execution) -> None:
    """``filename`` names epoch, step and metrics."""
    with execution:
        recorded(execution, checkpoints="best", filename="{epoch:02d}-{loss:.1f}-{step}")
    assert set(staged(execution)) == {"02-1.0-8.keras"}


def test_ours_are_not_copied_into_the_store(ml: DerivaML, execution: Execution) -> None:
    """What we wrote and renamed shares its bytes with the store: sent while the run runs, and still in its place."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, checkpoints="last"), epochs=1)
        (path,) = execution.working_dir.rglob("epoch-0001.keras")
        assert path.stat().st_nlink == 2
        keras.models.load_model(path)
    outputs(ml, execution, "Model")


# The user's own


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_users_checkpoints_are_kept_from_where_they_are(
    ml: DerivaML, execution: Execution, tmp_path: Path, ours_first: bool
) -> None:
    """With a ModelCheckpoint ours are off; its file is sent with its newest content, and stays, in any order."""
    path, model = tmp_path / "mine" / "best.keras", compiled()
    theirs = keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    ours = DerivaMLCallback(execution)
    with execution:
        fit(model, Losses(*LOSSES), *([ours, theirs] if ours_first else [theirs, ours]))
    kept = outputs(ml, execution, "Model")
    assert {name: set(asset.asset_types) for name, asset in kept.items()} == {"best.keras": {MODEL, BEST, LAST}}
    assert execution.download_asset(kept["best.keras"]).read_bytes() == path.read_bytes()
    assert int(keras.models.load_model(path).optimizer.iterations) == 8


@pytest.mark.parametrize("ours_first", [True, False])
def test_each_of_the_users_checkpoints_is_kept(execution: Execution, tmp_path: Path, ours_first: bool) -> None:
    """Of names with fields all are kept; the best by what the ModelCheckpoint watches and the last have their types."""
    theirs = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}-{loss:.1f}.keras", monitor="loss")
    ours = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(compiled(), Losses(*LOSSES), *([ours, theirs] if ours_first else [theirs, ours]))
    assert staged(execution) == {"01-3.0.keras": {MODEL}, "02-1.0.keras": {MODEL, BEST}, "03-2.0.keras": {MODEL, LAST}}


def test_best_and_last_of_two_callbacks_are_told_apart(execution: Execution, tmp_path: Path) -> None:
    """One ModelCheckpoint for the best, another for the last, with weights alone."""
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss", save_best_only=True)
    last = keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True)
    with execution:
        recorded(execution, best, last)
    assert staged(execution) == {"best.keras": {MODEL, BEST}, "last.weights.h5": {MODEL, LAST}}


def test_what_the_user_deletes_is_neither_sent_nor_missed(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """A file that is gone leaves the list."""
    theirs = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    delete = At(2, (tmp_path / "1.keras").unlink)
    with execution:
        fit(compiled(), theirs, delete, DerivaMLCallback(execution))
    assert set(outputs(ml, execution, "Model")) == {"2.keras", "3.keras"}


def test_what_lay_there_before_is_not_of_this_fit(execution: Execution, tmp_path: Path) -> None:
    """Files of an earlier run under names that fit the template are left alone."""
    (tmp_path / "99.keras").write_text("of another run")
    with execution:
        recorded(execution, keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    assert set(staged(execution)) == {"1.keras", "2.keras", "3.keras"}


def test_who_asks_for_ours_does_not_get_the_users(execution: Execution, tmp_path: Path) -> None:
    """With ``checkpoints=`` ours are kept, and the user's ModelCheckpoint is his own affair."""
    with execution:
        recorded(execution, keras.callbacks.ModelCheckpoint(tmp_path / "mine.keras"), checkpoints="best")
    assert set(staged(execution)) == {"epoch-0002.keras"}
    assert (tmp_path / "mine.keras").exists()


def test_the_users_checkpoint_in_the_staging_folder_is_kept(ml: DerivaML, execution: Execution) -> None:
    """A path that ``asset_file_path`` gave serves; each of two fits that write it in place sends its own content."""
    model, ours = compiled(), DerivaMLCallback(execution)
    with execution:
        path = execution.asset_file_path("Model", "mine.keras", asset_types=["Model_File", "Derived"])
        theirs = keras.callbacks.ModelCheckpoint(path, monitor="loss")
        for _ in range(2):
            fit(model, theirs, ours, epochs=1)
    found = [
        each for each in ml.lookup_execution(execution.execution_rid).list_assets("Output") if each.table == "Model"
    ]
    assert [each.filename for each in found] == ["mine.keras", "mine.keras"]
    assert {"Derived", BEST, LAST} <= set(found[0].asset_types)
    assert found[0].md5 != found[1].md5
    for each in found:
        ml.verify_asset(each)


def test_two_files_of_one_name_are_both_kept(execution: Execution, tmp_path: Path) -> None:
    """Two callbacks that write ``best.keras`` in two folders: the second is named with its folder."""
    one = keras.callbacks.ModelCheckpoint(tmp_path / "a" / "best.keras", monitor="loss", save_best_only=True)
    other = keras.callbacks.ModelCheckpoint(tmp_path / "b" / "best.keras")
    with execution:
        recorded(execution, one, other)
    assert set(staged(execution)) == {"best.keras", "b/best.keras"}


def test_the_users_checkpoints_within_an_epoch_are_kept(execution: Execution, tmp_path: Path) -> None:
    """With ``save_freq`` in batches, what was written before a failure in the same epoch is kept."""
    theirs = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.weights.h5", save_freq=2, save_weights_only=True
    )

    def fail(batch: int, logs: Any) -> None:
        if batch == 3:
            raise ZeroDivisionError

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(ZeroDivisionError), execution:
        fit(compiled(), theirs, stop, DerivaMLCallback(execution))
    assert set(staged(execution)) == {"1-2.weights.h5", "1-4.weights.h5"}


def test_the_users_checkpoints_in_another_fit_are_its_own(
    ml: DerivaML, execution: Execution, new_execution: Callable[[], Execution], tmp_path: Path
) -> None:
    """A path that two runs write gives each run its own content."""
    path, model = tmp_path / "last.keras", compiled()
    theirs, other = keras.callbacks.ModelCheckpoint(path), new_execution()
    for each in (execution, other):
        with each:
            fit(model, theirs, DerivaMLCallback(each), epochs=1)
    one, two = (outputs(ml, each, "Model")["last.keras"] for each in (execution, other))
    assert one.md5 != two.md5
