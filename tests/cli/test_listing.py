"""``deriva-ml list``."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow


def rids(said) -> list[str]:
    return [each["rid"] for each in said.json["executions"]]


def test_newest_first_with_state_and_duration(ask, run) -> None:
    """Executions come newest first, each with its state, how long it ran, and its workflow."""
    first, second = run("First"), run("Second")
    found = ask("list", "--json").json
    assert [each["rid"] for each in found["executions"]] == [second.execution_rid, first.execution_rid]
    newest = found["executions"][0]
    assert (newest["status"], newest["description"], newest["workflow"]["name"]) == ("Completed", "Second", "Test")
    assert newest["duration_seconds"] >= 0
    assert (found["page"], found["more"]) == (1, False)


def test_pages(ask, run) -> None:
    """A page has as many as asked for, the next goes on where it ended, and the screen says that there is one."""
    made = [run(f"Run {number}").execution_rid for number in range(5)][::-1]
    pages = [ask("list", "--json", "-n", "2", "--page", str(page)) for page in (1, 2, 3)]
    assert [rids(said) for said in pages] == [made[:2], made[2:4], made[4:]]
    assert [said.json["more"] for said in pages] == [True, True, False]
    assert "--page 2" in ask("list", "-n", "2").out


def test_filters(ask, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """Executions are found by state, by workflow and its type, by dataset, and by words in any case."""
    completed = run("Find ME")
    dataset = ml.create_dataset("Scans")
    other = Workflow(
        name="Segmenter", workflow_type="Inference", url="https://github.com/o/r/blob/a/s.py", checksum="1" * 40
    )
    with pytest.raises(ValueError), ml.create_execution(config.model_copy(update={"workflow": other})) as failed:
        failed.download_dataset_bag(dataset.rid)
        raise ValueError("no")
    for words, found in {
        ("--status", "completed"): completed,
        ("--status", "FAILED"): failed,
        ("--workflow", failed.workflow_rid): failed,
        ("--type", "Inference"): failed,
        ("--dataset", dataset.rid): failed,
        ("--text", "find me"): completed,
        ("--text", "segMENT"): failed,
    }.items():
        assert rids(ask("list", "--json", *words)) == [found.execution_rid], words
    assert rids(ask("list", "--json", "--text", "nowhere")) == []
    assert "No execution matches" in ask("list", "--text", "nowhere").out


@pytest.mark.parametrize("words", [("--workflow", "9-ZZZZ"), ("--dataset", "no rid"), ("--type", "Nothing")])
def test_a_filter_that_names_nothing_is_wrong_use(ask, ml: DerivaML, words: tuple[str, str]) -> None:
    """A record id or a term that the catalog does not have is told, rather than that nothing matches."""
    assert ask("list", *words).code == 2


def test_an_unknown_state_is_wrong_use(ask) -> None:
    """A state that does not exist is wrong use, and those that do are named."""
    said = ask("list", "--status", "done")
    assert said.code == 2
    assert "completed" in said.complaint


def test_the_state_is_live(ask, exe: Execution) -> None:
    """A run that goes on is shown with its last word and how long it has run, from its journal."""
    with exe:
        exe.update_status(Status.running, "Halfway", wait=False)
        (found,) = ask("list", "--json").json["executions"]
    assert (found["status"], found["status_detail"]) == ("Running", "Halfway")
    assert found["duration_seconds"] > 0


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_line_fits(ask, run, columns: int) -> None:
    """Whatever the description, each execution is one line that fits on the screen and begins with its record id."""
    exe = run("A description that goes on and on, " * 20)
    lines = ask("list", columns=columns).out.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith(exe.execution_rid)


def test_texts_are_not_obeyed(ask, run) -> None:
    """Markup, escape codes and line breaks in a description are shown as they are, and change nothing on the screen."""
    run("[bold red]x[/] \x1b[31mred\x1b[0m\nnew line \x9b\u202e")
    out = ask("list", columns=200).out
    assert r"[bold red]x[/] \x1b[31mred\x1b[0m new line \x9b\x202e" in out
    assert "\x1b" not in out


def test_the_catalog_is_asked_once(ask, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty executions cost as many questions to the catalog as two."""
    from deriva_ml_core.backends.sql.catalog import EmbeddedCatalog

    asked = []
    original = EmbeddedCatalog.select
    monkeypatch.setattr(
        EmbeddedCatalog, "select", lambda *given, **more: asked.append(given[1]) or original(*given, **more)
    )
    for _ in range(2):
        run()
    counts = []
    for _ in range(2):
        asked.clear()
        ask("list", "--json")
        counts.append(len(asked))
        for _ in range(8):
            run()
    assert counts[0] == counts[1]


def test_words_are_found_however_old(ask, run) -> None:
    """An old execution is found by its words, though a page of newer ones has none of them."""
    old = run("The needle")
    for _ in range(5):
        run("Hay")
    found = ask("list", "--text", "needle", "-n", "1", "--json")
    assert (rids(found), found.json["more"]) == ([old.execution_rid], False)
