"""The page of HTML: what it shows, that hostile texts stay texts, and that it needs nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_runs import Runs

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError, DerivaMLDeprecationWarning, FileConflict, UnknownRID
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow

HOSTILE = (
    "<script>window.hit=1</script><img src=x onerror=window.hit=1>\"' onload=window.hit=1 &lt;\x1b[31m\u202e{{7*7}}"
)
SVG_IMAGE = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hit=1</script><rect width="9" height="9"/></svg>'


class _Reader(HTMLParser):
    """Collects tags, attributes and texts; every tag must be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def read(page: str) -> _Reader:
    """Read a page, and check that it is well-formed, has no script, and refers to nothing that a browser loads."""
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert not reader.tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "video",
        "audio",
        "foreignobject",
    }
    assert [name for name, _ in reader.attributes if name.startswith("on") or name == "style"] == []
    for name, value in reader.attributes:
        if name == "src":
            assert re.match(r"data:image/(png|svg\+xml);base64,", value)
        assert name != "href" or value.startswith("https://")
    return reader


def hostile_workflow() -> Workflow:
    return Workflow(name=HOSTILE, workflow_type="Training", url="https://example.org/a'\"><b>.py", checksum="c" * 40)


@pytest.fixture
def trained(ml: DerivaML) -> Execution:
    """A run whose every name and text is hostile."""
    configuration = ExecutionConfiguration(
        workflow=hostile_workflow(), description=HOSTILE, parameters={HOSTILE: HOSTILE}
    )
    with ml.create_execution(configuration) as exe:
        exe.log_params({"lr": 0.125})
        reporter = TrainingReporter(exe, curves=False)
        reporter.begin_fit(epochs=3)
        for epoch in (1, 2, 3):
            reporter.log_image(HOSTILE, np.full((4, 4), 90, np.uint8), epoch * 10, epoch=epoch)
            reporter.end_epoch(epoch, {"loss": 1 / epoch, HOSTILE: float(epoch)}, step=epoch * 10)
        reporter.log_table(HOSTILE, [{HOSTILE: HOSTILE}, {HOSTILE: "=1+1"}])
        reporter.end_fit()
        records = exe.working_dir / "records"
        (records / "uncommitted.patch").write_text(f"+{HOSTILE}\n+</pre><script>window.hit=1</script>\n")
        exe.asset_file_path("Model", "<b>x.pt").write_text("weights")
    exe.upload_execution_outputs()
    return exe


def test_a_run_as_a_page(ml: DerivaML, trained: Execution, tmp_path: Path) -> None:
    """The page has parameters, metrics, curves, images, tables, files, patch, lineage and environment, all as text."""
    path = ml.export(trained.execution_rid, tmp_path / "run.html", format="html")
    page = path.read_text(encoding="utf-8")
    reader = read(page)
    texts = reader.texts
    for expected in (
        *("Parameters", "lr", "0.125", "Metrics", "loss", "0.3333", "Curves", "epoch", "Images, figures and tables"),
        *("fit 1, epoch 1, step 10", "=1+1", "Outputs", "<b>x.pt", "metrics.jsonl", "Lineage", "Code", "Environment"),
        *("Python", "Statuses", "Completed", trained.execution_rid),
    ):
        assert expected in texts, expected
    escaped = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\x202e")
    # title, heading, workflow, a parameter and its value, a metric, an image's and a table's name, a cell
    assert sum(escaped in text for text in texts) >= 9
    assert any("</pre><script>window.hit=1</script>" in text for text in texts)
    assert page.count("data:image/png;base64,") == 3
    assert {"svg", "path", "circle"} <= reader.tags
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_policy_forbids_everything_else(ml: DerivaML, trained: Execution, tmp_path: Path) -> None:
    """The page states that nothing may run and nothing may be loaded; the style sheet is allowed by its hash."""
    page = ml.export(trained.execution_rid, tmp_path / "run.html", format="html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert re.fullmatch(
        r"default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-[A-Za-z0-9+/]{43}=&#x27;; "
        r"base-uri &#x27;none&#x27;; form-action &#x27;none&#x27;",
        policy,
    )
    assert page.index("Content-Security-Policy") < page.index("<title>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a Chromium of the system."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_texts_in_a_browser(
    ml: DerivaML, trained: Execution, runs: Runs, tmp_path: Path, browser: Any, width: int
) -> None:
    """Nothing runs, nothing is requested, the style applies, and the page is not wider than the window."""
    for number, rids in enumerate((trained.execution_rid, [trained.execution_rid, runs.first, runs.second])):
        path = ml.export(rids, tmp_path / f"{number}.html", format="html")
        page = browser.new_page(viewport={"width": width, "height": 800})
        said: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
        page.on(
            "request",
            lambda request, said=said: None if request.url.startswith(("file:", "data:")) else said.append(request.url),
        )
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("window.hit") is None
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("getComputedStyle(document.querySelector('h2')).fontSize") == "17px"
        assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
        assert said == []
        page.close()


def test_a_script_in_an_image_does_not_run(ml: DerivaML, exe: Execution, tmp_path: Path, browser: Any) -> None:
    """An SVG of a figure is shown as an image, in which nothing runs."""
    from deriva_ml_core.media.encoders import MediaCopy, MediaSource
    from deriva_ml_core.media.logger import LoggedMedia

    with exe:
        copy = MediaCopy(1, lambda: SVG_IMAGE)
        exe._log_media(LoggedMedia("figure", "f", lambda: MediaSource(".svg", 1, lambda: copy)))
    page = browser.new_page()
    page.goto(ml.export(exe.execution_rid, tmp_path / "run.html", format="html").as_uri())
    assert page.evaluate("document.images.length") == 1
    assert page.evaluate("window.hit") is None
    page.close()


def test_runs_are_compared(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """Several runs share a page: what differs, curves in the same pictures, and each run."""
    for rate in (0.1, 0.2):
        configuration = ExecutionConfiguration(workflow=hostile_workflow(), description=f"rate {rate}")
        with ml.create_execution(configuration) as exe:
            reporter = TrainingReporter(exe, curves=False)
            reporter.begin_fit(epochs=2, settings={"rate": rate})
            for epoch in (1, 2):
                reporter.end_epoch(epoch, {"loss": rate / epoch})
            reporter.end_fit()
    rids = [each.rid for each in ml.list_executions(limit=2).executions]
    page = ml.export(rids, tmp_path / "both.html", format="html").read_text(encoding="utf-8")
    texts = read(page).texts
    assert "Comparison of 2 executions" in texts
    differences = texts[texts.index("configuration") : texts.index("metrics")]
    assert [text for text in differences if text in ("fit.rate", "0.1", "0.2")] == ["fit.rate", "0.2", "0.1"]
    (overlaid,) = re.findall(r"<svg.*?</svg>", page.partition("What differs")[0])
    assert [f">{rid}</text>" in overlaid for rid in rids] == [True, True]
    assert page.count("<details><summary>") >= 2


def test_a_run_without_anything(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A run without metrics, files and end has a page with what there is."""
    texts = read(ml.export(exe.execution_rid, tmp_path / "run.html", format="html").read_text()).texts
    assert "Created" in texts
    assert not {"Metrics", "Curves", "Images, figures and tables", "Inputs"} & set(texts)


def test_a_missing_object_is_said(ml: DerivaML, trained: Execution, tmp_path: Path) -> None:
    """If the store has lost a file, the page says so in its place, and has the rest."""
    shutil.rmtree(ml.connection.folder / "objects")
    shutil.rmtree(trained.working_dir / "outputs", ignore_errors=True)
    texts = read(ml.export(trained.execution_rid, tmp_path / "run.html", format="html").read_text()).texts
    assert any(text.startswith("Not available: ") for text in texts)
    assert "lr" in texts


def test_large_content_is_bounded(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Of many images, names and long texts the page shows some, counts the others, and stays small."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    with exe:
        for step in range(20):
            exe.log_image("small", np.zeros((2, 2)), step)
        for name in range(40):
            exe.log_image(f"name {name}", np.zeros((2, 2)))
        exe._drain_media()
        for step in range(3):
            exe.log_image("large", noise.repeat(2, 1), step)
        exe.log_params({f"p{number}": "x" * 600 for number in range(900)})
        (exe.working_dir / "records" / "uncommitted.patch").write_text("+x\n" * 200_000)
    path = ml.export(exe.execution_rid, tmp_path / "run.html", format="html")
    texts = read(path.read_text()).texts
    assert "and 8 earlier images" in texts
    assert "and 12 names" in texts
    assert "and 337,856 bytes" in texts
    assert path.stat().st_size < 2_000_000


def test_wrong_calls(ml: DerivaML, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown RIDs, too many runs, an existing file, and formats of one run are errors; the default name is the RID."""
    with pytest.raises(UnknownRID):
        ml.export("9-ZZZZ", tmp_path / "a.html", format="html")
    with pytest.raises(ConfigurationError, match="1 to 50 executions, and these are 0"):
        ml.export([], tmp_path / "a.html", format="html")
    with pytest.raises(ConfigurationError, match="The format ro-crate holds one execution, and these are 2"):
        ml.export([runs.first, runs.second], tmp_path / "a")
    assert list(tmp_path.glob("a*")) == []
    monkeypatch.chdir(tmp_path)
    assert ml.export(runs.first, format="html") == Path(f"run-{runs.first}.html")
    assert ml.export([runs.first, runs.second], format="html") == Path(f"runs-{runs.first}-and-1-more.html")
    with pytest.raises(FileConflict):
        ml.export(runs.first, format="html")
    with pytest.warns(DerivaMLDeprecationWarning, match="'path' of DerivaML.export"):
        ml.export(runs.first, path=tmp_path / "old.html", format="html")  # type: ignore[call-arg]
