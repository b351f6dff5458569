"""The files that describe a run are found by role, asset type and the run's own list, not by name alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deriva_ml_core.analysis.run_files import load_epoch_costs, select_metadata_assets
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration, RecordedExecution
from deriva_ml_core.models import Asset
from deriva_ml_core.training import TrainingReporter

PATCH = b"# Uncommitted changes of other on no commit\n\ndiff --git a/x b/x\n"
PNG = b"\x89PNG\r\n\x1a\n the curves of another run"


def train(ml: DerivaML, config: ExecutionConfiguration, losses: list[float]) -> Execution:
    """Record a training with these losses, and return its execution."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(len(losses))
        for epoch, loss in enumerate(losses, start=1):
            reporter.end_epoch(epoch, {"loss": loss})
        reporter.end_fit()
        (exe.working_dir / "training_curves.png").write_bytes(PNG)
        exe.asset_file_path("Execution_Metadata", exe.working_dir / "training_curves.png")
        (exe.working_dir / "uncommitted.patch").write_bytes(PATCH)
        exe.asset_file_path("Execution_Metadata", exe.working_dir / "uncommitted.patch")
    exe.upload_execution_outputs()
    return exe


@pytest.fixture
def training(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    return train(ml, config.model_copy(update={"parameters": {"lr": 0.5}}), [2.0, 1.0])


@pytest.fixture
def evaluation(ml: DerivaML, config: ExecutionConfiguration, training: Execution) -> RecordedExecution:
    """An execution without records of its own here, whose inputs are all metadata files of the training."""
    with ml.create_execution(config) as exe:
        for asset in training.list_assets("Output"):
            exe.record_input(asset)
    exe.upload_execution_outputs()
    own = {asset.filename for asset in exe.list_assets("Output")}
    assert own.isdisjoint({"metrics.jsonl", "training.json", "uncommitted.patch"})
    shutil.rmtree(exe.working_dir)
    return ml.lookup_execution(exe.execution_rid)


def test_inputs_are_not_shown_as_records(ml: DerivaML, evaluation: RecordedExecution, training: Execution) -> None:
    """The metrics, fits, parameters and environment of a training are not shown as those of its evaluation."""
    names = {asset.filename for asset in evaluation.list_assets("Input")}
    assert names >= {"metrics.jsonl", "training.json", "configuration.json", "journal.jsonl", "uncommitted.patch"}
    description = ml.describe(evaluation.execution_rid)
    assert (description.curves, description.fits) == ((), ())
    assert [str(each.status) for each in description.statuses] == ["Created", "Running", "Completed"]
    assert {each.progress for each in description.statuses} == {None}  # the training reported epochs
    differences = ml.compare(training.execution_rid, evaluation.execution_rid).differences
    changed = {each.name: (each.left, each.right) for each in differences}
    assert changed["lr"] == (0.5, None)
    assert changed["loss, last"] == (1.0, None)
    assert changed.get("uncommitted changes", (None, None))[1] is None


def test_own_records_are_shown(ml: DerivaML, config: ExecutionConfiguration, training: Execution) -> None:
    """A training that uses another one shows its own metrics, fits, parameters and picture."""
    with ml.create_execution(config.model_copy(update={"parameters": {"lr": 0.25}})) as exe:
        for asset in training.list_assets("Output"):
            exe.record_input(asset)
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(1)
        reporter.end_epoch(1, {"loss": 0.125})
        reporter.end_fit()
    exe.upload_execution_outputs()
    shutil.rmtree(exe.working_dir)
    description = ml.describe(exe.execution_rid)
    (curve,) = description.curves
    assert (curve.name, curve.last) == ("loss", 0.125)
    assert [fit.epochs for fit in description.fits] == [1]
    assert description.statuses[-1].status is Status.completed
    assert description.start_time == exe.start_time
    changed = {
        each.name: (each.left, each.right) for each in ml.compare(training.execution_rid, exe.execution_rid).differences
    }
    assert changed["lr"] == (0.5, 0.25)


def test_input_picture_is_not_shown(evaluation: RecordedExecution) -> None:
    """The curves of an input are not the curves of the run."""
    assert "<img" not in evaluation._repr_html_()


def test_output_with_the_name_of_a_record(ml: DerivaML, exe: Execution) -> None:
    """A user's output called like a record is an output; the journal lists which files the run itself wrote."""
    names = ("configuration.json", "uncommitted.patch", "journal.jsonl")
    with exe:
        for name in names:
            exe.asset_file_path("Execution_Metadata", name).write_bytes(b"of the user")
    exe.upload_execution_outputs()
    shutil.rmtree(exe.working_dir)
    recorded = ml.lookup_execution(exe.execution_rid)
    assets = recorded.list_assets()
    assert sum(asset.filename == "configuration.json" for asset in assets) == 2
    assert select_metadata_assets(recorded, assets, "uncommitted.patch") == []
    (configuration,) = select_metadata_assets(recorded, assets, "configuration.json", ("Deriva_Config",))
    assert configuration.length != len(b"of the user")
    assert recorded.list_statuses()[-1].status is Status.completed


def test_push_copies_outputs_with_the_name_of_a_record(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A push copies a user's files called ``journal.jsonl``; only the run's own journal is rewritten."""
    with exe:
        exe.asset_file_path("Model", "journal.jsonl").write_bytes(b"a model")
        exe.asset_file_path("Execution_Metadata", "journal.jsonl").write_bytes(b"of the user")
    exe.upload_execution_outputs()
    target = DerivaML(f"file:{tmp_path / 'target'}")
    report = ml.push(exe.execution_rid, target)
    copy = target.lookup_execution(report.execution)

    def lengths(recorded: RecordedExecution, table: str) -> list[int]:
        outputs = recorded.list_assets("Output")
        return [asset.length for asset in outputs if (asset.table, asset.filename) == (table, "journal.jsonl")]

    assert lengths(copy, "Model") == [len(b"a model")]
    assert len(b"of the user") in lengths(copy, "Execution_Metadata")
    assert len(lengths(copy, "Execution_Metadata")) == 2
    assert [update.status for update in copy.list_statuses()] == [update.status for update in exe.list_statuses()]


def test_push_copies_a_journal_that_is_an_input(
    ml: DerivaML, config: ExecutionConfiguration, exe: Execution, tmp_path: Path
) -> None:
    """A push of a run and of the run that used its journal links the journal as the input of the second."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    journal: Asset = next(asset for asset in exe.list_assets("Output") if asset.filename == "journal.jsonl")
    with ml.create_execution(config) as user:
        user.record_input(journal)
        user.add_nested_execution(exe.execution_rid)
    target = DerivaML(f"file:{tmp_path / 'target'}")
    copy = target.lookup_execution(ml.push(user.execution_rid, target).execution)
    assert [(asset.filename, asset.md5) for asset in copy.list_assets("Input")] == [("journal.jsonl", journal.md5)]
    (child,) = copy.list_nested_executions()
    assert [update.status for update in child.list_statuses()][-1] is Status.completed


def test_configuration_of_an_input_is_not_loaded(ml: DerivaML, evaluation: RecordedExecution) -> None:
    """The parameters of an execution are its own, none here, and not those of an input's configuration."""
    from deriva_ml_core.analysis.run_files import load_configuration

    configuration = load_configuration(ml.connection, evaluation, evaluation.list_assets())
    assert json.loads(json.dumps(configuration["parameters"])) == {}


def test_epoch_costs(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """What the epochs cost is read in order, at most so many; a run without metrics has none."""
    exe = train(ml, config, [3.0, 2.0, 1.0])
    recorded = ml.lookup_execution(exe.execution_rid)
    costs = load_epoch_costs(ml.connection, recorded, recorded.list_assets())
    assert [(cost.fit, cost.epoch) for cost in costs] == [(1, 1), (1, 2), (1, 3)]
    assert all(cost.seconds is not None and cost.seconds >= 0 for cost in costs)
    assert len(load_epoch_costs(ml.connection, recorded, recorded.list_assets(), limit=2)) == 2
    other = ml.lookup_execution(ml.create_execution(config).execution_rid)
    assert load_epoch_costs(ml.connection, other, []) == []
