"""``deriva-ml list``."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Progress
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
    from deriva_ml_core.backends.sql.catalog import SqlCatalog

    queries = []
    original = SqlCatalog.select
    monkeypatch.setattr(
        SqlCatalog, "select", lambda *args, **kwargs: queries.append(args[1]) or original(*args, **kwargs)
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


def record(ml: DerivaML, config: ExecutionConfiguration, params: dict[str, object], **metrics: float) -> str:
    """Record a run with parameters and the metrics of one epoch, and return its RID."""
    with ml.create_execution(config) as exe:
        exe.log_params(params)
        exe.update_status(Status.running, "", progress=Progress(epoch=1, metrics=metrics))
    return exe.execution_rid


def test_ten_runs_of_a_sweep(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """At 80 columns, ten runs are told apart by the parameters that differ, and the best one is named."""
    rids = [
        record(ml, config, {"lr": rate / 100, "batch_size": 32}, loss=9.0, val_loss=abs(rate - 4) / 2)
        for rate in range(1, 11)
    ]
    header, *lines, note = cli("list", columns=80).stdout.splitlines()
    assert header.split()[:6] == ["RID", "Status", "Created", "val_loss", "lr", "Duration"]
    assert [line.split()[0] for line in lines] == rids[::-1]
    assert [line.split()[5] for line in lines[:2]] == ["0.1", "0.09"]
    assert note == f"Best val_loss of these: 0 by {rids[3]}"


def test_chosen_columns(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Parameters and metrics that are named are shown, also if they are equal or unknown."""
    for lr in (1, 2):
        record(ml, config, {"lr": lr, "batch_size": 32}, loss=lr + 0.5, accuracy=lr / 4)
    header, *lines = cli(
        "list", "--params", "batch_size, none", "--metrics", "accuracy,loss", columns=100
    ).stdout.splitlines()
    assert header.split()[3:7] == ["accuracy", "loss", "batch_size", "none"]
    assert lines[0].split()[4:7] == ["0.5", "2.5", "32"]


def test_csv(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``--csv`` prints all parameters and metrics, one row for each run."""
    first = record(ml, config, {"lr": 1, "text": 'a "b", c'}, loss=0.5)
    second = record(ml, config, {"lr": 2}, gain=3)
    rows = list(csv.DictReader(cli("list", "--csv").stdout.splitlines()))
    assert [(row["rid"], row["params.lr"], row["params.text"], row["metrics.loss"]) for row in rows] == [
        (second, "2", "", ""),
        (first, "1", 'a "b", c', "0.5"),
    ]
    assert rows[0]["metrics.gain"] == "3.0"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-0.5", "-0.5"),
        ("+1e3", "+1e3"),
        ("a=b", "a=b"),
    ],
)
def test_csv_has_no_formulas(cli, ml: DerivaML, config: ExecutionConfiguration, text: str, cell: str) -> None:
    """A text that a spreadsheet would run as a formula has an apostrophe before it; a number has none."""
    record(ml, config, {"text": text}, loss=-0.5)
    (row,) = csv.DictReader(cli("list", "--csv").stdout.splitlines())
    assert (row["params.text"], row["metrics.loss"]) == (cell, "-0.5")


def test_conditions(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``--where`` selects by parameters and metrics; an invalid one exits with 2 and shows where."""
    first, second = (record(ml, config, {"lr": lr, "optimizer": "Adam"}, loss=lr) for lr in (0.5, 0.25))
    where = ("--where", "lr > 0.1", "--where", "loss <= 0.25")
    assert rids(cli("list", "--json", *where)) == [second]
    assert rids(cli("list", "--json", "--where", "optimizer=Adam", "--sort", "loss")) == [second, first]
    assert "No execution matches" in cli("list", "--where", "lr > 1").stdout
    invalid = cli("list", "--where", "lr >")
    assert (invalid.code, "at character 5: expected a value" in " ".join(invalid.stderr.split())) == (2, True)


def test_untrusted_parameters(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Names and values of parameters are shown escaped and cut."""
    for text in ("\x1b[31mred", "b" * 400):
        record(ml, config, {"odd\x1bname": text})
    out = cli("list", columns=120).stdout
    assert "\x1b" not in out
    assert r"odd\x1bname" in out
    assert "bbbbbbbbbbbbb..." in out


def test_reason_of_failures(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Without descriptions, the reason of a failure is shown at 80 columns."""
    with pytest.raises(ValueError), ml.create_execution(config.model_copy(update={"description": ""})):
        raise ValueError("too deep")
    assert "ValueError: too deep" in cli("list", columns=80).stdout


def test_rows_of_executions(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """`execution_rows` and `executions_dataframe` have the same columns for all runs, those of each kind together."""
    first = record(ml, config, {"lr": 1}, loss=0.5)
    with ml.create_execution(config) as exe:
        exe.log_params({"seed": 2})
        exe.update_status(Status.running, "", progress=Progress(stage="test", metrics={"loss": 4}))
    rows = ml.execution_rows()
    base = ["rid", "workflow", "status", "status_detail", "created", "duration_seconds", "description", "tags", "user"]
    assert [list(row) for row in rows] == [
        [*base, "params.seed", "params.lr", "metrics.loss (test)", "metrics.loss"]
    ] * 2
    values = [(row["rid"], row["params.lr"], row["params.seed"], row["metrics.loss"]) for row in rows]
    assert values == [(exe.execution_rid, None, 2, None), (first, 1, None, 0.5)]
    frame = ml.executions_dataframe(where="lr = 1", limit=1)
    assert (list(frame["rid"]), frame["metrics.loss"].tolist()) == ([first], [0.5])


def test_chosen_columns_in_order(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``--columns`` chooses and orders the columns, also of ``--csv``; for an unknown one, similar ones are named."""
    first = record(ml, config, {"lr": 1, "seed": 5}, loss=0.5)
    second = record(ml, config, {"lr": 2, "seed": 6}, loss=0.25)
    names = "params.lr,rid,metrics.loss"
    header, *lines = cli("list", "--columns", names).stdout.splitlines()
    assert header.split() == ["params.lr", "rid", "metrics.loss"]
    assert [line.split() for line in lines] == [["2", second, "0.25"], ["1", first, "0.5"]]
    assert cli("list", "--columns", names, "--csv").stdout.splitlines() == [
        names,
        f"2,{second},0.25",
        f"1,{first},0.5",
    ]
    unknown = cli("list", "--columns", "rid,params.rl")
    assert (unknown.code, "Did you mean 'params.lr'" in " ".join(unknown.stderr.split())) == (2, True)


def test_csv_has_the_columns_of_the_rows(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``--csv`` has the columns of `execution_rows`, in the same order."""
    record(ml, config, {"lr": 1}, loss=0.5)
    record(ml, config, {"seed": 1}, gain=0.5)
    header = cli("list", "--csv").stdout.splitlines()[0]
    assert header.split(",") == [
        *("rid", "workflow", "status", "status_detail", "created", "duration_seconds", "description", "tags", "user"),
        *("params.seed", "params.lr", "metrics.gain", "metrics.loss"),
    ]
    assert header.split(",") == list(ml.execution_rows()[0])


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_many_parameters_fit_the_terminal(cli, ml: DerivaML, config: ExecutionConfiguration, columns: int) -> None:
    """Named parameters that do not fit the terminal are listed below the table, with those of ``--columns``."""
    names = [f"parameter_{number:02}" for number in range(20)]
    record(ml, config, dict.fromkeys(names, "a value of it"))
    by_params = cli("list", "--params", ",".join(names), columns=columns).stdout
    by_columns = cli("list", "--columns", ",".join(f"params.{name}" for name in names), columns=columns).stdout
    for out in (by_params, by_columns):
        assert max(map(len, out.splitlines())) <= columns
        assert out.splitlines()[1].count("a value of it") >= 1
        assert "Too narrow for " in out
        assert all(name in out for name in names)


def test_user(cli, ml: DerivaML, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ran it is shown and filtered; the list has a column for it if several users did."""
    monkeypatch.setenv("LOGNAME", "ada")
    first = record(ml, config, {})
    assert "User" not in cli("list").stdout
    monkeypatch.setenv("LOGNAME", "grace")
    second = record(ml, config, {})
    assert [each["user"] for each in cli("list", "--json").json["executions"]] == ["grace", "ada"]
    header, *lines = cli("list", columns=120).stdout.splitlines()
    assert "User" in header.split()
    assert ["grace" in lines[0], "ada" in lines[1]] == [True, True]
    assert rids(cli("list", "--json", "--user", "ada")) == [first]
    assert [each.execution_rid for each in ml.find_executions(user="grace")] == [second]
    assert [row["user"] for row in ml.execution_rows(user="ada")] == ["ada"]
    assert ml.lookup_execution(first).user == "ada"
    assert "ada" in cli("show", first).stdout


def test_parent(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The runs that are nested in a run, such as the jobs of a sweep, are found by it."""
    rid = record(ml, config, {})
    with ml.create_execution(config) as parent:
        parent.add_nested_execution(rid)
    assert rids(cli("list", "--json", "--parent", parent.execution_rid)) == [rid]
    assert [each.execution_rid for each in ml.find_executions(parent=parent.execution_rid)] == [rid]
    assert ml.find_executions(parent=rid) == []
    assert cli("list", "--parent", "9-ZZZZ").code == 2
