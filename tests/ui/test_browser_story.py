"""The page in a real browser: a short story from the token to a training that is watched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from axe_playwright_python.sync_playwright import Axe
from page_browser import WAIT_MS, Opened, open_page
from page_catalog import HOSTILE_METRIC, HOSTILE_PARAMETER, Recorded
from page_server import PageServer
from playwright.sync_api import Browser, expect

expect.set_options(timeout=WAIT_MS)

PROGRAM = Path(__file__).with_name("training_program.py")


def test_token_and_filter(browser: Browser, recorded_server: PageServer, recorded: Recorded) -> None:
    """A person enters the token, sees the runs, and filters and sorts them."""
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{recorded_server.address}/?sort=val_loss")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open the page").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token of this server. Each start has a new one.")
    page.get_by_label("Token").fill(recorded_server.token)
    page.get_by_role("button", name="Open the page").click()
    expect(page).to_have_url(f"{recorded_server.address}/?sort=val_loss")
    rids = page.locator("tbody tr td:nth-child(2) a")
    expect(rids).to_have_text(list(recorded.sweep))
    page.get_by_label("Conditions").fill("lr >= 0.01, lr < 0.1")
    page.get_by_role("button", name="Apply").click()
    expect(rids).to_have_text([recorded.sweep[1], recorded.sweep[2]])
    page.get_by_role("link", name="Clear").click()
    expect(rids).to_have_count(8)
    page.get_by_label("Status").select_option("Failed")
    page.get_by_role("button", name="Apply").click()
    expect(rids).to_have_text([recorded.failed])
    page.close()


def test_tags(opened: Opened, recorded: Recorded) -> None:
    """Tags are a column and a filter, and lead from a run to the others that have them."""
    page = opened.go("/?tags=published")
    rids = page.locator("tbody tr td:nth-child(2) a")
    expect(rids).to_have_text([recorded.sweep[1], recorded.sweep[0]])
    expect(page.get_by_role("cell", name="<b>tag</b>, published")).to_be_visible()
    page.get_by_label("Tags").fill("published, <b>tag</b>")
    page.get_by_role("button", name="Apply").click()
    expect(rids).to_have_text([recorded.sweep[0]])
    opened.go(f"/runs/{recorded.sweep[0]}")
    page.get_by_role("link", name="published").click()
    expect(rids).to_have_count(2)


def test_filter_that_does_not_parse(opened: Opened) -> None:
    """A condition that cannot be parsed is an error that shows where."""
    page = opened.go("/?where=lr+%3E%3E+1")
    expect(page.get_by_role("alert")).to_contain_text("lr >> 1")
    page = opened.go("/?where=lrr+%3E+1")
    expect(page.get_by_role("alert")).to_contain_text("lrr")


def test_compare(opened: Opened, recorded: Recorded) -> None:
    """Selected runs are compared: their curves, parameters and differences."""
    page = opened.go("/?sort=val_loss")
    for rid in recorded.sweep[:2]:
        page.get_by_label(f"Select {rid}").check()
    page.get_by_role("button", name="Compare the selected runs").click()
    expect(page).to_have_url(re.compile(f"/compare\\?runs={recorded.sweep[0]}%2C{recorded.sweep[1]}$"))
    curves = opened.wait_for_points("val_loss", 6)
    assert [curve["name"] for curve in curves] == [f"{recorded.sweep[0]} Rate 0.1", f"{recorded.sweep[1]} Rate 0.03"]
    assert [round(value, 4) for _, value in curves[0]["values"]] == [0.84, 0.588, 0.4116, 0.2881, 0.2017, 0.1412]
    configuration = page.get_by_role("region", name="Differences: configuration")
    expect(configuration.locator("tbody tr")).to_have_count(1)
    expect(configuration.locator("tbody td")).to_have_text(["fit.lr", "0.1", "0.03"])


def test_watch_a_training(opened: Opened, recorded: Recorded) -> None:
    """A training in another process is seen in the list and on its page while it runs, without a reload."""
    environment = {**os.environ, "DERIVA_ML_HOME": str(recorded.home)}
    page = opened.go("/")
    with subprocess.Popen(
        [sys.executable, PROGRAM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as training:
        assert training.stdin is not None
        assert training.stdout is not None
        rid = training.stdout.readline().strip()
        row = page.locator("tbody tr", has=page.get_by_role("link", name=rid, exact=True))
        expect(row.locator(".status")).to_have_text("Running")
        page.evaluate("window.notReloaded = true")
        page.get_by_role("link", name=rid, exact=True).click()
        expect(page.locator(".headline .status")).to_have_text("Running")
        page.evaluate("window.notReloaded = true")
        for epoch in (1, 2, 3):
            training.stdin.write("\n")
            training.stdin.flush()
            assert training.stdout.readline() == f"epoch {epoch}\n"
            expect(page.locator(".headline")).to_contain_text(f"Epoch {epoch}/5")
            curves = opened.wait_for_points("loss", epoch)
            assert [curve["name"] for curve in curves] == ["loss", "val_loss"]
            assert [value for _, value in curves[1]["values"]] == [1.5 / done for done in range(1, epoch + 1)]
            expect(page.locator("#console pre")).to_contain_text(f"epoch {epoch}")
        training.stdin.close()
        expect(page.locator(".headline .status")).to_have_text("Completed")
        assert page.evaluate("window.notReloaded") is True


def test_lineage(opened: Opened, recorded: Recorded) -> None:
    """The lineage leads from a run to its dataset, and on to the run that made it."""
    page = opened.go(f"/runs/{recorded.sweep[0]}")
    made_from = page.locator("#lineage ul").first
    made_from.get_by_role("link", name=recorded.dataset).click()
    expect(page).to_have_url(re.compile(f"/datasets/{recorded.dataset}$"))
    expect(page.locator("#members .thumbnail img")).to_have_count(3)
    expect(page.locator("#users tbody tr")).to_have_count(4)
    picture = page.locator("#lineage figure canvas").first
    picture.scroll_into_view_if_needed()
    point = page.evaluate(
        """(rid) => {
            const element = document.querySelector("#lineage .nicegui-echart");
            const chart = getElement(element.id.slice(1)).chart;
            const series = chart.getOption().series[0];
            const node = series.data.find((each) => each.name === rid);
            const box = element.getBoundingClientRect();
            const [x, y] = chart.convertToPixel({gridIndex: 0}, node.value);
            return [box.x + x, box.y + y];
        }""",
        recorded.sweep[1],
    )
    page.mouse.click(*point)
    expect(page).to_have_url(re.compile(f"/runs/{recorded.sweep[1]}$"))


def test_preview_and_download(opened: Opened, recorded: Recorded) -> None:
    """A file is previewed as text, and downloaded as it is."""
    page = opened.go(f"/assets/{recorded.report}")
    expect(page.locator("#preview pre")).to_contain_text('"layers": [')
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "report.json"
    assert Path(download.value.path()).read_text() == '{"rate": 0.1, "layers": [1, 2]}'


def test_logged_images(opened: Opened, recorded: Recorded) -> None:
    """Logged images and tables are shown with a slider over their steps."""
    page = opened.go(f"/runs/{recorded.sweep[0]}")
    mask = page.get_by_role("figure", name="Image mask")
    expect(mask.get_by_role("status")).to_have_text("fit 1, epoch 6, step 6")
    mask.get_by_label("Step of mask").fill("1")
    expect(mask.get_by_role("status")).to_have_text("fit 1, epoch 2, step 2")
    picture = mask.get_by_role("img", name="mask, fit 1, epoch 2, step 2")
    expect(picture).to_be_visible()
    page.wait_for_function("(picture) => picture.naturalWidth === 2", arg=picture.element_handle())
    table = page.get_by_role("figure", name="Table worst")
    expect(table.locator("tbody td")).to_have_text(["6.png", "0.1176"])


def test_names_with_markup(opened: Opened, recorded: Recorded) -> None:
    """Names with HTML, escape codes and the marks of NiceGUI and ECharts are shown as text and run nothing."""
    page = opened.go("/")
    row = page.locator("tbody tr", has=page.get_by_role("link", name=recorded.hostile, exact=True))
    expect(row).to_contain_text("<img src=x onerror=alert(1)> \\x1b[31mred")
    page = opened.go(f"/runs/{recorded.hostile}")
    expect(page.locator("#parameters")).to_contain_text(HOSTILE_PARAMETER)
    assert opened.wait_for_points(HOSTILE_METRIC, 2)[0]["name"] == HOSTILE_METRIC
    assert opened.wait_for_points("<b>loss</b>", 2)[0]["name"] == "<b>loss</b>"
    page.locator("figure canvas").first.hover()
    expect(page.locator("#files")).to_contain_text("<b>bold</b> {b}.html")
    opened.go(f"/compare?runs={recorded.hostile},{recorded.sweep[0]}")
    opened.wait_for_points(HOSTILE_METRIC, 2)
    expect(page.locator("#parallel figure canvas").first).to_be_visible()
    assert page.locator("h1 img, td img, td b, figcaption b").count() == 0


def test_keyboard(opened: Opened, recorded: Recorded) -> None:
    """The list is used by keyboard: skip to the content, select, follow a link."""
    page = opened.go("/?sort=val_loss")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_label(f"Select {recorded.sweep[0]}").focus()
    page.keyboard.press("Space")
    expect(page.get_by_label(f"Select {recorded.sweep[0]}")).to_be_checked()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == recorded.sweep[0]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Copy RID {recorded.sweep[0]}"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/runs/{recorded.sweep[0]}$"))


def test_copy(browser: Browser, recorded_server: PageServer, recorded: Recorded) -> None:
    """The button beside a RID copies it."""
    with open_page(browser, recorded_server, permissions=["clipboard-read", "clipboard-write"]) as opened:
        page = opened.go(f"/runs/{recorded.sweep[0]}")
        page.get_by_label("Copy the command").first.click()
        expect(page.locator("#toast")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == f"deriva-ml show {recorded.sweep[0]}"


PAGES = (
    "/",
    "/runs/{run}",
    "/compare?runs={run},{other}",
    "/datasets",
    "/datasets/{dataset}",
    "/workflows",
    "/workflows/{workflow}",
    "/assets/{picture}",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(browser: Browser, recorded_server: PageServer, recorded: Recorded, scheme: str) -> None:
    """axe finds no violation on any page, light or dark, and nothing is wider than a phone."""
    with open_page(browser, recorded_server, color_scheme=scheme, viewport={"width": 400, "height": 800}) as opened:
        for template in PAGES:
            path = template.format(run=recorded.sweep[0], other=recorded.sweep[1], **vars(recorded))
            page = opened.go(path)
            expect(page.locator("table tbody tr, #preview img").first).to_be_attached()
            is_dark = page.evaluate("document.body.classList.contains('body--dark')")
            assert is_dark is (scheme == "dark")
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
            violations = Axe().run(page).response["violations"]
            found = [(each["id"], [one["html"] for one in each["nodes"]][:3]) for each in violations]
            assert found == [], path
