"""Curves as SVG: what is drawn, what the axes say, and that hostile names and numbers do no harm."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deriva_ml_core.training.curve_picture import CurveLine, CurvePanel, render_curves, render_panel
from deriva_ml_core.training.metrics_file import MetricsFile

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return the texts of a picture, which must be well-formed and have no scripts and references."""
    root = ElementTree.fromstring(svg)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {"svg", "title", "text", "line", "path", "circle"}
    attributes = {name for each in root.iter() for name in each.attrib}
    assert not any(name.startswith("on") or name in ("style", "href", "class") for name in attributes)
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def numbers(svg: str) -> list[float]:
    return [float(text) for text in re.findall(r'(?<=[\s",ML])-?\d+(?:\.\d+)?(?=[\s",])', svg)]


def test_a_line_is_drawn() -> None:
    """Ticks, unit, title and legend are as the values say, and the line has the place of its values."""
    svg = render_panel(CurvePanel("loss", "epoch", [CurveLine("a", [1, 2, 3], [0.0, 1.0, 0.5])]))
    assert texts(svg) == ["loss", "0", "0.5", "1.0", "1", "2", "3", "epoch", "a"]
    root = ElementTree.fromstring(svg)
    (path,) = [each for each in root.iter(f"{SVG}path") if each.get("stroke", "").startswith("#")]
    places = [tuple(map(float, each.split(","))) for each in re.split("[ML ]+", path.get("d", "").strip("M"))]
    assert [round(x) for x, _ in places] == [65, 232, 399]
    assert [round(y) for _, y in places] == [191, 39, 115]
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_large_ranges_of_a_loss_are_logarithmic() -> None:
    """A loss from 1000 to 0.01 has an axis of powers of ten; a metric with such values has none."""
    line = CurveLine("a", [1, 2, 3], [1000.0, 1.0, 0.01])
    logarithmic = texts(render_panel(CurvePanel("loss", "epoch", [line], is_loss=True)))
    assert logarithmic == ["loss (log scale)", "0.01", "1", "100", "1", "2", "3", "epoch", "a"]
    assert "score" in texts(render_panel(CurvePanel("score", "epoch", [line])))


@pytest.mark.parametrize(
    "values",
    [
        [],
        [math.nan],
        [math.nan, 1.0, math.nan, 2.0, 3.0],
        [math.inf, -math.inf],
        [1e299, -1e299],
        [1.7e308, -1.7e308],
        [5e-324, 0.0],
        [0.0, 0.0],
        [-1e-12, -1e-12],
        [1e15, 1e15 + 1],
        [1e-200, 1e200],
    ],
    ids=str,
)
@pytest.mark.parametrize("is_loss", [True, False])
def test_any_values_give_a_picture(values: list[float], is_loss: bool) -> None:
    """No value raises, leaves the picture, or writes a number that SVG does not know."""
    line = CurveLine("a", list(range(len(values))), values)
    svg = render_panel(CurvePanel("x", "step", [line], is_loss=is_loss))
    texts(svg)
    assert not re.search(r"\b(nan|inf)\b", svg)
    assert all(-1 <= number <= 500 for number in numbers(svg))


HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e]]>\ud800"


def test_texts_are_escaped() -> None:
    """Names with HTML, quotes, control characters and half characters are texts."""
    svg = render_panel(CurvePanel(HOSTILE, HOSTILE, [CurveLine(HOSTILE, [1], [1.0])], fit_starts={2: 1.0}))
    assert "<script" not in svg
    assert any("<script>alert(1)</script>" in text for text in texts(svg))
    svg.encode()


def test_gaps_and_single_points() -> None:
    """A value that is not finite is a gap, and a point between gaps has a marker."""
    values = [1.0, math.nan, *([2.0] * 100)]
    root = ElementTree.fromstring(render_panel(CurvePanel("x", "step", [CurveLine("a", list(range(102)), values)])))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
    (path,) = [each for each in root.iter(f"{SVG}path") if each.get("stroke", "").startswith("#")]
    assert path.get("d", "").count("M") == 1


def test_curves_of_a_file(tmp_path: Path) -> None:
    """Losses share a picture, other metrics have their own, and a further fit has a boundary; no file, no picture."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for fit in (1, 2):
        for epoch in (1, 2, 3):
            values = {"loss": 1 / epoch, "val_loss": 2 / epoch, "accuracy": epoch / 3}
            file.append(stage="fit", fit=fit, by="epoch", epoch=epoch, step=None, values=values)
    file.close()
    pictures = [texts(svg) for svg in render_curves(file.path)]
    assert [(picture[0], "fit 2" in picture) for picture in pictures] == [("loss", True), ("accuracy", True)]
    assert [{"loss", "val_loss"} <= set(picture[1:]) for picture in pictures] == [True, False]
    assert render_curves(tmp_path / "none") == render_curves(None) == []


def test_a_legend_is_bounded() -> None:
    """Of many runs, the legend names thirty and counts the others."""
    lines = [CurveLine(f"run {number}", [1, 2], [1.0, 2.0], number) for number in range(100)]
    shown = texts(render_panel(CurvePanel("x", "epoch", lines)))
    assert ("run 29" in shown, "run 30" in shown, shown[-1]) == (True, False, "and 70 more")
