"""``deriva-ml tag``, ``note`` and ``baseline``, and the tags in ``list``, ``show`` and ``diff``."""

from __future__ import annotations

import csv
import io

from deriva_ml_core.client import DerivaML


def test_tag(cli, ml: DerivaML, run) -> None:
    """Tags are added and removed; the command prints those that the run has then."""
    rid = run().execution_rid
    result = cli("tag", rid, "paper", "two words")
    assert (result.code, result.stdout) == (0, f"{rid} paper, two words\n")
    assert cli("tag", rid, "new", "--json").json == {"rid": rid, "tags": ["new", "paper", "two words"]}
    assert cli("tag", rid, "--remove", "paper", "new").stdout == f"{rid} two words\n"
    assert cli("tag", rid, "two words", "--remove").stdout == f"{rid} has no tags\n"
    assert cli("tag", rid).stdout == f"{rid} has no tags\n"
    assert ml.lookup_execution(rid).tags == ()


def test_invalid_tag(cli, run) -> None:
    """An invalid tag is wrong usage, and so is an unknown run."""
    rid = run().execution_rid
    result = cli("tag", rid, "a,b")
    assert (result.code, "comma" in result.stderr) == (2, True)
    assert cli("tag", "1-ZZZZ", "a").code == 2
    result = cli("tag", rid, "--remove")
    assert (result.code, "at least one tag" in result.stderr) == (2, True)


def test_note(cli, ml: DerivaML, run) -> None:
    """A note is the description of a run or a dataset; without a text it is printed."""
    rid, dataset = run("Before").execution_rid, ml.create_dataset("Scans").rid
    assert cli("note", rid).stdout == "Before\n"
    assert cli("note", rid, "After [all]").stdout == f"{rid} After [all]\n"
    assert ml.lookup_execution(rid).description == "After [all]"
    assert cli("note", dataset, "Scans of 2026").code == 0
    assert ml.lookup_dataset(dataset).description == "Scans of 2026"
    assert cli("note", rid, "").stdout == f"{rid} has no description\n"
    assert cli("note", rid, "Again", "--json").json == {"rid": rid, "description": "Again"}


def test_note_of_a_workflow(cli, ml: DerivaML, run) -> None:
    """The description of a workflow can be changed too, and that of another row cannot."""
    workflow = run().workflow_rid
    assert cli("note", workflow, "What it does").code == 0
    assert ml.lookup_workflow(workflow).description == "What it does"
    term = ml.connection.catalog.select("Workflow_Type", {"Name": "Training"})[0]["RID"]
    result = cli("note", term, "x")
    assert (result.code, "Workflow_Type" in result.stderr) == (2, True)


def test_baseline(cli, ml: DerivaML, run) -> None:
    """A baseline is set, moved, shown and removed."""
    first, second = run("First").execution_rid, run("Second").execution_rid
    assert cli("baseline").stdout == "No execution is a baseline. Set one with: deriva-ml baseline RID\n"
    assert cli("baseline", first).stdout == f"{first} is the baseline\n"
    assert cli("baseline", second, "--name", "paper").stdout == f"{second} is the baseline paper\n"
    assert cli("baseline", second).stdout == f"{second} is the baseline\n"
    assert cli("baseline", "--json").json == {"baseline": second, "paper": second}
    assert [line.split() for line in cli("baseline").stdout.splitlines()] == [
        ["Name", "RID"],
        ["baseline", second],
        ["paper", second],
    ]


def test_list_shows_tags(cli, ml: DerivaML, run) -> None:
    """Tags have a column if a listed run has any, filter the list, and the baseline is named below it."""
    plain, tagged = run("Plain").execution_rid, run("Tagged").execution_rid
    assert "Tags" not in cli("list").stdout
    ml.lookup_execution(tagged).add_tags("paper", "good")
    ml.set_baseline(plain)
    text = cli("list").stdout
    assert "Tags" in text.splitlines()[0]
    assert "good, paper" in text
    assert f"Baseline: {plain}" in text
    assert [each["rid"] for each in cli("list", "--tag", "paper", "--tag", "good", "--json").json["executions"]] == [
        tagged
    ]
    result = cli("list", "--tag", "papr")
    assert "No execution matches" in result.stdout
    assert "'papr'" in result.stdout
    assert "'paper'" in result.stdout
    rows = list(csv.DictReader(io.StringIO(cli("list", "--csv").stdout)))
    assert [row["tags"] for row in rows] == ["good, paper", "baseline"]


def test_show_and_diff(cli, ml: DerivaML, run) -> None:
    """``show`` has the tags, and ``diff`` compares them and marks the baseline."""
    first, second = run("First").execution_rid, run("Second").execution_rid
    assert "tags" not in cli("diff", first, second, "--json").stdout
    ml.lookup_execution(first).add_tags("paper")
    ml.set_baseline(second)
    ml.set_baseline(second, "paper")
    assert "paper" in cli("show", first).stdout
    assert cli("show", first, "--json").json["tags"] == ["paper"]
    result = cli("diff", first, "--baseline")
    assert result.stdout.splitlines()[0] == f"Executions {second} (baseline) and {first}"
    assert cli("diff", first, "--baseline-name", "paper", "--json").json["left"] == second
    found = cli("diff", second, first, "--json").json["differences"]
    assert [each for each in found if each["name"] == "tags"] == [
        {"section": "outcome", "name": "tags", "left": "baseline, baseline:paper", "right": "paper"}
    ]
    result = cli("diff", first, "--baseline-name", "none")
    assert (result.code, "'none'" in result.stderr) == (2, True)
    result = cli("diff", second, "--baseline")
    assert (result.code, "is the baseline itself" in result.stderr) == (2, True)


def test_hostile_tags_of_other_programs(cli, ml: DerivaML, run) -> None:
    """Control characters and markup in tags that another program wrote are printed as text."""
    rid = run().execution_rid
    ml.connection.catalog.insert("Execution_Tag", [{"Execution": rid, "Tag": "\x1b[31m[bold]red\n"}])
    for result in (cli("list", columns=120), cli("show", rid), cli("tag", rid), cli("diff", rid, rid, "--all")):
        assert result.code == 0
        assert "\x1b[31m" not in result.stdout
        assert "[bold]red" in result.stdout
