"""``deriva-ml list``."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow


def rids(result) -> list[str]:
    return [each["rid"] for each in result.json["executions"]]


def test_newest_first(cli, run) -> None:
    """Executions are listed newest first, with status, duration and workflow."""
    first, second = run("First"), run("Second")
    found = cli("list", "--json").json
    assert [each["rid"] for each in found["executions"]] == [second.execution_rid, first.execution_rid]
    newest = found["executions"][0]
    assert (newest["status"], newest["description"], newest["workflow"]["name"]) == ("Completed", "Second", "Test")
    assert newest["duration_seconds"] >= 0
    assert (found["page"], found["more"]) == (1, False)


def test_pages(cli, run) -> None:
    """Pages follow each other without gaps, and the output names the next page."""
    made = [run(f"Run {number}").execution_rid for number in range(5)][::-1]
    pages = [cli("list", "--json", "-n", "2", "--page", str(page)) for page in (1, 2, 3)]
    assert [rids(result) for result in pages] == [made[:2], made[2:4], made[4:]]
    assert [result.json["more"] for result in pages] == [True, True, False]
    assert "--page 2" in cli("list", "-n", "2").stdout


def test_filters(cli, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """Executions are filtered by status, workflow, type, dataset, and text in any case."""
    completed = run("Find ME")
    dataset = ml.create_dataset("Scans")
    other = Workflow(
        name="Segmenter", workflow_type="Inference", url="https://github.com/o/r/blob/a/s.py", checksum="1" * 40
    )
    with pytest.raises(ValueError), ml.create_execution(config.model_copy(update={"workflow": other})) as failed:
        failed.download_dataset_bag(dataset.rid)
        raise ValueError("no")
    for args, found in {
        ("--status", "completed"): completed,
        ("--status", "FAILED"): failed,
        ("--workflow", failed.workflow_rid): failed,
        ("--type", "Inference"): failed,
        ("--dataset", dataset.rid): failed,
        ("--text", "find me"): completed,
        ("--text", "segMENT"): failed,
    }.items():
        assert rids(cli("list", "--json", *args)) == [found.execution_rid], args
    assert rids(cli("list", "--json", "--text", "nowhere")) == []
    assert "No execution matches" in cli("list", "--text", "nowhere").stdout


@pytest.mark.parametrize("args", [("--workflow", "9-ZZZZ"), ("--dataset", "no rid"), ("--type", "Nothing")])
def test_filter_that_names_nothing(cli, ml: DerivaML, args: tuple[str, str]) -> None:
    """A filter with an unknown RID or term exits with 2 instead of an empty list."""
    assert cli("list", *args).code == 2


def test_unknown_status(cli) -> None:
    """An unknown status exits with 2 and prints the existing ones."""
    result = cli("list", "--status", "done")
    assert result.code == 2
    assert "completed" in result.stderr


def test_running_execution(cli, exe: Execution) -> None:
    """A running execution has its last message and its duration so far, from its journal."""
    with exe:
        exe.update_status(Status.running, "Halfway", wait=False)
        (found,) = cli("list", "--json").json["executions"]
    assert (found["status"], found["status_detail"]) == ("Running", "Halfway")
    assert found["duration_seconds"] > 0


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_fits_the_terminal(cli, run, columns: int) -> None:
    """Each execution is one line that fits the terminal and begins with its RID."""
    exe = run("A description that goes on and on, " * 20)
    lines = cli("list", columns=columns).stdout.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith(exe.execution_rid)


def test_untrusted_description(cli, run) -> None:
    """Markup, escape codes and line breaks in a description are shown escaped."""
    run("[bold red]x[/] \x1b[31mred\x1b[0m\nnew line \x9b\u202e")
    out = cli("list", columns=200).stdout
    assert r"[bold red]x[/] \x1b[31mred\x1b[0m new line \x9b\x202e" in out
    assert "\x1b" not in out


def test_number_of_queries(cli, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of twenty executions takes as many queries as a list of two."""
    from deriva_ml_core.backends.sql.catalog import EmbeddedCatalog

    queries = []
    original = EmbeddedCatalog.select
    monkeypatch.setattr(
        EmbeddedCatalog, "select", lambda *args, **kwargs: queries.append(args[1]) or original(*args, **kwargs)
    )
    for _ in range(2):
        run()
    counts = []
    for _ in range(2):
        queries.clear()
        cli("list", "--json")
        counts.append(len(queries))
        for _ in range(8):
            run()
    assert counts[0] == counts[1]


def test_text_is_found_on_later_pages(cli, run) -> None:
    """An old execution is found by its text, though many newer ones do not match."""
    old = run("The needle")
    for _ in range(5):
        run("Hay")
    found = cli("list", "--text", "needle", "-n", "1", "--json")
    assert (rids(found), found.json["more"]) == ([old.execution_rid], False)


def test_empty_catalog(cli, home: Path) -> None:
    """A list of an empty catalog says where the catalog is and how to record a run; a filter does not."""
    first, second = cli("list", columns=200).stdout.splitlines()
    assert first == f"The catalog in {home / 'local'} has no executions yet."
    assert "make demo" in second
    assert cli("list", "--status", "failed").stdout == "No execution matches.\n"
    assert cli("list", "--json").json == {"executions": [], "page": 1, "more": False}


def test_headings(cli, run) -> None:
    """A wide list has the duration and the last message."""
    run()
    assert cli("list", columns=200).stdout.splitlines()[0].split() == [
        *("RID", "Status", "Created", "Duration", "Workflow", "Description", "Message")
    ]
