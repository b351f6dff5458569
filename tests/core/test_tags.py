"""Tags, notes and baselines: what is recorded about a run after it was planned."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from faulty_catalog import make_faulty_client

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import (
    ConfigurationError,
    InvalidTag,
    UnknownBaseline,
    UnknownRID,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration


def tag_rows(ml: DerivaML) -> list[tuple[str, str]]:
    rows = ml.connection.catalog.select("Execution_Tag", order=("RCT", "RID"))
    return [(row["Execution"], row["Tag"]) for row in rows]


def test_tags_of_a_recorded_run(ml: DerivaML, exe: Execution) -> None:
    """Tags are added once, sorted without regard to case, and removed; they are read from the catalog."""
    run = ml.lookup_execution(exe.execution_rid)
    assert run.tags == ()
    run.add_tags("paper", "Zoo", "good")
    run.add_tags("paper", "paper")
    assert run.tags == ("good", "paper", "Zoo")
    assert exe.tags == ("good", "paper", "Zoo")
    run.remove_tags("good", "never there")
    assert ml.lookup_execution(exe.execution_rid).tags == ("paper", "Zoo")
    assert tag_rows(ml) == [(exe.execution_rid, "paper"), (exe.execution_rid, "Zoo")]


def test_case_distinguishes_tags(ml: DerivaML, exe: Execution) -> None:
    """Tags that differ by case are different tags."""
    exe.add_tags("Paper", "paper")
    assert exe.tags == ("Paper", "paper")
    exe.remove_tags("paper")
    assert exe.tags == ("Paper",)


def test_form_of_tags(ml: DerivaML, exe: Execution) -> None:
    """White space around a tag is dropped, Unicode is composed, and a tag has at most 100 characters."""
    exe.add_tags("  two words ", "cafe\u0301", "x" * 100, "日本", "lr=0.1")
    assert exe.tags == ("café", "lr=0.1", "two words", "x" * 100, "日本")
    exe.remove_tags("caf\u00e9")
    assert exe.tags == ("lr=0.1", "two words", "x" * 100, "日本")


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("x" * 101, "has 101 characters"),
        ("a\nb", "control character"),
        ("a\x1b[31mb", "control character"),
        ("a\u202eb", "control character"),
        ("a\udc80", "control character"),
        ("a,b", "comma"),
        (3, "a text, not int"),
        (["a"], "a text, not list"),
        ("baseline", "set_baseline"),
        ("baseline:paper", "set_baseline"),
    ],
)
def test_invalid_tags(ml: DerivaML, exe: Execution, tag: object, reason: str) -> None:
    """An invalid tag raises with the reason, and none of the tags of the call is added."""
    run = ml.lookup_execution(exe.execution_rid)
    with pytest.raises(InvalidTag, match=reason):
        run.add_tags("fine", tag)  # type: ignore[arg-type]
    assert run.tags == ()


def test_foreign_tags_are_removable(ml: DerivaML, exe: Execution) -> None:
    """A tag that another program wrote in another form is listed and can be removed."""
    rows = [{"Execution": exe.execution_rid, "Tag": tag} for tag in ("a,b", " padded ")]
    ml.connection.catalog.insert("Execution_Tag", rows)
    assert exe.tags == (" padded ", "a,b")
    exe.remove_tags("a,b", " padded ")
    assert exe.tags == ()


def test_secrets_in_tags_and_descriptions(ml: DerivaML, exe: Execution) -> None:
    """A secret in a tag or a description is redacted."""
    secret = "ghp_" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA2bC4"
    run = ml.lookup_execution(exe.execution_rid)
    run.add_tags(secret)
    run.description = f"with {secret}"
    assert secret not in "".join(run.tags)
    assert secret not in ml.lookup_execution(exe.execution_rid).description
    assert len(run.tags) == 1


def test_tags_of_an_unknown_run(ml: DerivaML, exe: Execution) -> None:
    """A run that was deleted meanwhile cannot be tagged or described."""
    run = ml.lookup_execution(exe.execution_rid)
    ml.connection.catalog.delete("Execution", {"RID": exe.execution_rid})
    with pytest.raises(UnknownRID):
        run.add_tags("late")
    with pytest.raises(UnknownRID, match="deleted"):
        run.description = "late"


def test_description_of_a_recorded_run(ml: DerivaML, exe: Execution) -> None:
    """A description is changed in the catalog and in the object, and the former one stays in the snapshot."""
    run = ml.lookup_execution(exe.execution_rid)
    snapshot = ml.connection.catalog.snapshot()
    run.description = "Zeile 1\nline 2 \ud800"
    assert run.description == "Zeile 1\nline 2 \\ud800"
    assert ml.lookup_execution(exe.execution_rid).description == "Zeile 1\nline 2 \\ud800"
    (row,) = ml.connection.catalog.at(snapshot).select("Execution")
    assert row["Description"] == "A test"
    with pytest.raises(ConfigurationError, match="NoneType"):
        run.description = None  # type: ignore[assignment]
    run.description = ""
    assert ml.lookup_execution(exe.execution_rid).description == ""


def test_description_of_a_dataset(ml: DerivaML) -> None:
    """A dataset's description is changed without a new version."""
    dataset = ml.create_dataset("Scans")
    dataset.description = "Scans of 2026"
    assert dataset.description == ml.lookup_dataset(dataset.rid).description == "Scans of 2026"
    assert [version.version for version in dataset.dataset_history()] == ["0.1.0"]
    with pytest.raises(ConfigurationError, match="a text, not int"):
        dataset.description = 3  # type: ignore[assignment]


def test_running_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A running execution is tagged and described; the end of the run keeps both."""
    with ml.create_execution(config) as exe:
        exe.add_tags("live")
        exe.description = "In the middle"
        assert (exe.tags, exe.description) == (("live",), "In the middle")
    run = ml.lookup_execution(exe.execution_rid)
    assert (run.tags, run.description, str(run.status)) == (("live",), "In the middle", "Completed")


def test_failed_write_does_not_end_a_run(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """While a run is running, a tag or description that cannot be written is a warning with the command."""
    ml, catalog = make_faulty_client()
    caplog.set_level(logging.WARNING)
    with ml.create_execution(config) as exe:
        catalog.down = True
        exe.add_tags("a tag")
        exe.add_tags("lr=1,2")
        exe.description = 3  # type: ignore[assignment]
        catalog.down = False
    messages = [record.getMessage() for record in caplog.records]
    rid = exe.execution_rid
    assert len(messages) == 3
    assert messages[0].startswith(f"Failed to add the tags of execution {rid}: ")
    assert f"deriva-ml tag {rid} 'a tag'" in messages[0]
    assert "comma" in messages[1]
    assert messages[2].startswith(f"Failed to change the description of execution {rid}: ")
    assert str(exe.status) == "Completed"
    assert ml.lookup_execution(rid).tags == ()


def test_dry_run(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A dry run writes no tags."""
    with ml.create_execution(config.model_copy(update={"tags": ("planned",)}), dry_run=True) as exe:
        exe.add_tags("dry")
        exe.description = "Dry"
    assert (exe.tags, tag_rows(ml)) == ((), [])


def test_configured_tags(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """An execution is created with the tags of its configuration, which its file has too."""
    configured = ExecutionConfiguration(workflow=config.workflow, tags=["one", " two "])
    assert configured.tags == ("one", "two")
    with ml.create_execution(configured) as exe:
        pass
    assert exe.tags == ("one", "two")
    (file,) = exe.working_dir.rglob("configuration.json")
    loaded = ExecutionConfiguration.load_configuration(file)
    assert loaded.tags == ("one", "two")
    with pytest.raises(InvalidTag, match="comma"):
        ExecutionConfiguration(tags=["a,b"])
    with pytest.raises(InvalidTag, match="list of texts"):
        ExecutionConfiguration(tags="abc")
    path = tmp_path / "config.yaml"
    path.write_text("tags: [fine, 'not, fine']\n")
    with pytest.raises(InvalidTag, match="comma"):
        ExecutionConfiguration.load_configuration(path)


def test_find_by_tags(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Several tags mean all; a tag that no run has finds nothing."""
    runs = [ml.create_execution(config) for _ in range(3)]
    for run, tags in zip(runs, (("a",), ("a", "b"), ("b", "A")), strict=True):
        run.add_tags(*tags)
    first, second, third = (run.execution_rid for run in runs)

    def found(*tags: str) -> list[str]:
        return [run.execution_rid for run in ml.find_executions(tags=tags)]

    assert found("a") == [second, first]
    assert found("a", "b") == [second]
    assert found("b") == [third, second]
    assert found("A") == [third]
    assert found("a", "A") == []
    assert found("none") == []
    assert [run.execution_rid for run in ml.find_executions(tags="b", limit=1)] == [third]
    assert [each.rid for each in ml.list_executions(tags=["a"]).executions] == [second, first]
    assert [each.tags for each in ml.list_executions().executions] == [("A", "b"), ("a", "b"), ("a",)]
    assert [row["tags"] for row in ml.execution_rows()] == ["A, b", "a, b", "a"]


def test_find_by_tags_and_parameters(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Tags combine with conditions and other filters."""
    for rate, tag in ((0.1, "keep"), (0.2, "keep"), (0.2, "drop")):
        with ml.create_execution(config.model_copy(update={"parameters": {"rate": rate}, "tags": (tag,)})):
            pass
    (found,) = ml.find_executions(tags=["keep"], where="rate > 0.1")
    assert (found.tags, found.params) == (("keep",), {"rate": 0.2})


def test_baseline_moves(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """One run is the baseline of a name; setting it for another one moves it, and it can be removed."""
    first, second = (ml.create_execution(config).execution_rid for _ in range(2))
    with pytest.raises(UnknownBaseline, match="set_baseline"):
        ml.lookup_baseline()
    ml.set_baseline(first)
    ml.set_baseline(second, "paper")
    assert (ml.lookup_baseline().execution_rid, ml.lookup_baseline("paper").execution_rid) == (first, second)
    ml.set_baseline(second)
    ml.set_baseline(second)
    assert ml.lookup_baseline().execution_rid == second
    assert ml.lookup_execution(first).tags == ()
    assert ml.lookup_execution(second).tags == ("baseline", "baseline:paper")
    assert ml.list_baselines() == {"baseline": second, "paper": second}
    ml.lookup_execution(second).remove_tags("baseline")
    assert ml.list_baselines() == {"paper": second}
    with pytest.raises(UnknownBaseline, match=r"'baseline'.*paper"):
        ml.lookup_baseline()
    with pytest.raises(InvalidTag, match="comma"):
        ml.set_baseline(first, "a,b")
    with pytest.raises(UnknownRID):
        ml.set_baseline("1-ZZZZ")


def test_interrupted_move_of_a_baseline(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """If two runs have the tag of a baseline, the newer one is the baseline, and the next move leaves one."""
    first, second = (ml.create_execution(config).execution_rid for _ in range(2))
    ml.set_baseline(second)
    ml.connection.catalog.insert("Execution_Tag", [{"Execution": first, "Tag": "baseline"}])
    assert ml.lookup_baseline().execution_rid == first
    ml.set_baseline(second)
    assert tag_rows(ml) == [(second, "baseline")]


def test_baseline_of_a_renamed_case(ml: DerivaML, exe: Execution) -> None:
    """A tag that only begins like a baseline's is a usual tag."""
    exe.add_tags("baselines", "Baseline", "my baseline")
    assert exe.tags == ("Baseline", "baselines", "my baseline")
    assert ml.list_baselines() == {}
