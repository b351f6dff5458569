"""How the page reads addresses, groups curves, smooths values and places the nodes of a lineage."""

from __future__ import annotations

import math

import pytest
from starlette.datastructures import QueryParams

from deriva_ml_core.analysis.lineage import Edge, Lineage, Node
from deriva_ml_core.analysis.runs import ExecutionSummary
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, InvalidRID
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.training.metric_rows import MetricRow
from deriva_ml_ui.charts import Series, draw_curves, draw_lineage, draw_parallel, place_nodes, smooth
from deriva_ml_ui.comparison_page import parallel_axes, parse_rids
from deriva_ml_ui.file_list import visible_text
from deriva_ml_ui.metric_panels import CurveData, build_panels, group_name
from deriva_ml_ui.page_parts import address, is_web_address
from deriva_ml_ui.run_list import RunFilters, split_list
from deriva_ml_ui.stored_files import decode_text


@pytest.mark.parametrize(
    ("metric", "group"),
    [
        ("loss", "loss"),
        ("val_loss", "loss"),
        ("train/loss", "loss"),
        ("loss_test", "loss"),
        ("val_top_5_accuracy", "top_5_accuracy"),
        ("value_loss", "value_loss"),
        ("val", "val"),
        ("", ""),
    ],
)
def test_group_name(metric: str, group: str) -> None:
    """Metrics of training and validation share a panel."""
    assert group_name(metric) == group


def test_split_list() -> None:
    """Commas in quotes separate nothing."""
    assert split_list("""lr > 0.1, name = "a, b" ,, x = 'c,d'""") == ["lr > 0.1", 'name = "a, b"', "x = 'c,d'"]


def test_filters_are_the_address() -> None:
    """Filters are written into the address and read from it; another order begins on the first page."""
    filters = RunFilters(text="a&b", where="lr > 0.1", status="failed", tags="x", page=3)
    assert filters.address() == "/?text=a%26b&where=lr+%3E+0.1&status=failed&tags=x&page=3"
    assert RunFilters.from_query(QueryParams("text=a%26b&where=lr+%3E+0.1&status=failed&tags=x&page=3")) == filters
    assert filters.sorted_address("loss") == "/?text=a%26b&where=lr+%3E+0.1&status=failed&tags=x&sort=loss"
    assert filters.page_address(1) == "/?text=a%26b&where=lr+%3E+0.1&status=failed&tags=x"


@pytest.mark.parametrize(("text", "page"), [("2", 2), ("0", 1), ("-1", 1), ("x", 1), ("", 1), ("9" * 30, 1), ("²", 1)])
def test_page_number(text: str, page: int) -> None:
    """A page that is no number is the first one."""
    assert RunFilters.from_query(QueryParams({"page": text})).page == page


def test_address_quotes() -> None:
    """A RID of a damaged catalog stays inside of its part of the address."""
    assert address('/runs/a?b#c"<', {"x": "", "y": "&"}) == "/runs/a%3Fb%23c%22%3C?y=%26"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.example/x", True),
        ("http://a", True),
        ("javascript:alert(1)", False),
        ("file:///x", False),
        ("//[", False),
    ],
)
def test_is_web_address(text: str, expected: bool) -> None:
    """Only addresses of the web become links."""
    assert is_web_address(text) is expected


def test_smooth() -> None:
    """The first value stays as it is, and a value that is not finite does not spoil the following."""
    assert smooth([4.0, 0.0, 0.0], 0.5) == pytest.approx([4.0, 4 / 3, 4 / 7])
    assert smooth([1.0, math.nan, 1.0], 0.9)[2] == pytest.approx(1.0)
    assert smooth([1.0, 2.0], 0.0) == [1.0, 2.0]


def test_smoothed_curves() -> None:
    """With smoothing, the values themselves stay visible under the same name."""
    options = draw_curves([Series("loss", ((1, 4.0), (2, math.inf)))], "epoch", is_dark=False, smoothing=0.5)
    faint, bold = options["series"]
    assert (faint["name"], faint["data"], faint["lineStyle"]["opacity"]) == ("loss", [[1, 4.0], [2, None]], 0.25)
    assert (bold["name"], bold["data"], bold["lineStyle"]["opacity"]) == ("loss", [[1, 4.0], [2, None]], 1.0)
    assert options["tooltip"]["renderMode"] == "richText"


def row(
    metric: str, value: float, *, epoch: int | None = None, step: int | None = None, **changes: object
) -> MetricRow:
    by = "step" if epoch is None else "epoch"
    time = f"2026-01-01T00:0{epoch or 0}:00+00:00"
    values = {"stage": "fit", "fit": 1, "by": by, "epoch": epoch, "step": step, "time": time, **changes}
    return MetricRow(**values, metric=metric, value=value)  # type: ignore[typeddict-item]


ROWS = (
    row("loss", 1.0, epoch=1, step=10),
    row("loss", 0.5, epoch=2, step=20),
    row("loss", 0.9, step=5),
    row("loss", 0.6, step=15),
    row("val_loss", 2.0, epoch=1, step=10),
)


@pytest.mark.parametrize(
    ("axis", "points"),
    [
        ("epoch", ((1.0, 1.0), (2.0, 0.5))),
        ("step", ((5.0, 0.9), (15.0, 0.6))),
        ("time", ((0.0, 0.9), (0.0, 0.6))),
    ],
)
def test_panels_by_axis(axis: str, points: tuple[tuple[float, float], ...]) -> None:
    """A metric is drawn by epoch on the axis of epochs, and by step on the others if it was logged by step."""
    panels = build_panels(CurveData(("loss", "val_loss"), ("loss", "val_loss"), (ROWS,), ("1-A",)), axis)
    assert {name: [each.name for each in series] for name, series in panels.items()} == {"loss": ["loss", "val_loss"]}
    assert panels["loss"][0].points == points


def test_panels_of_two_runs() -> None:
    """In a comparison, each metric has its panel, and each run its colour in all of them."""
    data = CurveData(("loss", "val_loss"), ("loss", "val_loss"), (ROWS, ROWS[:1]), ("1-A one", "1-B two"))
    panels = build_panels(data, "epoch")
    assert [(each.name, each.color) for each in panels["loss"]] == [("1-A one", 0), ("1-B two", 1)]
    assert [(each.name, each.color) for each in panels["val_loss"]] == [("1-A one", 0)]


def summary(rid: str, params: dict[str, object], val_loss: float | None) -> ExecutionSummary:
    metric = MetricSummary(
        stage="fit", name="val_loss", last=val_loss, best=val_loss, best_at=1, larger_is_better=False
    )
    return ExecutionSummary(
        rid,
        Status.completed,
        "",
        "",
        None,
        None,
        None,
        params=params,
        metrics=(metric,),  # type: ignore[arg-type]
    )


def test_parallel_axes() -> None:
    """Parallel coordinates have the parameters that differ, and the metrics; text has an axis of its values."""
    runs = [
        summary("1-A", {"lr": 0.1, "opt": "Adam", "same": 1}, 0.5),
        summary("1-B", {"lr": 0.2, "opt": "SGD", "same": 1}, math.nan),
    ]
    axes = parallel_axes(runs)
    assert axes == [("lr", [0.1, 0.2]), ("opt", ["Adam", "SGD"]), ("val_loss", [0.5, None])]
    options = draw_parallel(axes, ["1-A", "1-B"], is_dark=True)
    assert [axis["type"] for axis in options["parallelAxis"]] == ["value", "category", "value"]
    assert options["parallelAxis"][1]["data"] == ["Adam", "SGD"]
    assert [series["data"] for series in options["series"]] == [[[0.1, "Adam", 0.5]], [[0.2, "SGD", None]]]


def test_runs_to_compare() -> None:
    """The runs of an address are RIDs, each once, and not too many."""
    assert parse_rids("1-A, 1-B,1-A") == ["1-A", "1-B"]
    with pytest.raises(InvalidRID):
        parse_rids("1-A,<b>")
    with pytest.raises(ConfigurationError, match="At most 50 runs are compared on a page, and these are 51"):
        parse_rids(",".join(f"1-{number}" for number in range(51)))


def lineage(*edges: tuple[str, str]) -> Lineage:
    nodes = {
        rid: Node(rid, "Execution", f"{{b}} {rid}") for rid in dict.fromkeys(rid for edge in edges for rid in edge)
    }
    return Lineage(edges[0][0], nodes, tuple(Edge(*edge) for edge in edges), (), (), is_truncated=False)


def test_place_nodes() -> None:
    """What was made from something is right of it, also of its longest path."""
    assert place_nodes(lineage(("a", "b"), ("b", "c"), ("a", "c"), ("x", "c"))) == {
        "a": (0, 0),
        "x": (0, 1),
        "b": (1, 0),
        "c": (2, 0),
    }


def test_place_nodes_of_a_cycle() -> None:
    """A cycle, which only a damaged catalog has, is placed too."""
    assert set(place_nodes(lineage(("a", "b"), ("b", "a")))) == {"a", "b"}


def test_draw_lineage() -> None:
    """Names are no templates of the chart, and links point to nodes by their position."""
    series = draw_lineage(lineage(("a", "b")), is_dark=False)["series"][0]
    assert [node["label"]["formatter"] for node in series["data"]] == ["Execution a\n(b) a", "Execution b\n(b) b"]
    assert series["links"] == [{"source": 0, "target": 1}]


def test_decode_text() -> None:
    """A text may end inside a character; bytes that are no text give none."""
    assert decode_text("é".encode() + b"\xc3", is_cut=True) == "é"
    assert decode_text("é".encode() + b"\xc3", is_cut=False) is None
    assert decode_text(b"a\0b", is_cut=False) is None


def test_visible_text() -> None:
    """Escape codes in a file are visible; line breaks and tabs stay."""
    assert visible_text("a\tb\n\x1b[31mred\r\n") == "a\tb\n\\x1b[31mred"
