"""docs/ tells the truth: each page's blocks, one after the other, are a program that runs and prints what is shown."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from deriva_ml_cli.app import COMMANDS
from deriva_ml_core import errors
from deriva_ml_core.backends.deriva import create_or_extend_catalog
from deriva_ml_core.models import Address
from fakes.deriva_server import serving
from page_program import A_TRAINING, install_plugin, run_blocks
from pages import blocks

NEEDED = ("pytorch_lightning", "keras", "hydra_zen", "papermill", "joblib", "prov", "mkdocs")

if any(importlib.util.find_spec(name) is None for name in NEEDED):
    pytest.skip(f"the pages are run with, and made by, {', '.join(NEEDED)}", allow_module_level=True)

DOCS = Path(__file__).parents[1] / "docs"

AN_EARLIER_RUN = """\
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

told = Workflow(name="Earlier", workflow_type="Training", url="https://example.org/earlier.py")
with DerivaML().create_execution(ExecutionConfiguration(workflow=told)) as earlier:
    earlier.asset_file_path("Model", "earlier.pt").write_text("never sent")
"""

READERS: dict[tuple[str, ...], str] = {
    ("coming-from.md",): "",
    ("how-it-works.md",): "",
    ("hydra-zen.md",): "",
    ("index.md", "training.md"): A_TRAINING,
    ("quick-start.md",): "",
    ("running-models-and-notebooks.md",): "",
    ("servers.md",): "",
    ("sweeps.md",): "",
    ("troubleshooting.md",): AN_EARLIER_RUN,
}
"""Pages that are read one after the other, and what their reader has already, as Python."""

TOLD_BETWEEN_PROCESSES = {
    f"DERIVA_ML_{name}" for name in ("EXECUTIONS", "HYDRA_OVERRIDES", "NOTEBOOK_COMMAND", "NOTEBOOK_RUN")
}
"""Environment variables that no user sets."""

PARSED = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}


def test_no_page_is_left_out() -> None:
    """Each page with a block of Python or shell is run."""
    run = {page.name for page in DOCS.glob("*.md") if {"python", "bash"} & {each.language for each in blocks(page)}}
    assert run == {page for pages in READERS for page in pages}


A_SERVER = """\
import os

from deriva_ml_core.backends.deriva import create_or_extend_catalog, open_backend
from deriva_ml_core.plugins import hookimpl


def here(address):
    if address.hostname != "server.org":
        return None
    return address.model_copy(update={"hostname": os.environ["SERVER_HERE"]})


@hookimpl(tryfirst=True)
def connect(address):
    from pathlib import Path

    return (meant := here(address)) and open_backend(meant, Path(os.environ["DERIVA_ML_HOME"]))


@hookimpl(tryfirst=True)
def create_catalog(address, project_name, acls):
    return (meant := here(address)) and create_or_extend_catalog(meant, project_name, acls)
"""
"""A plugin by which the name of the pages' server means one on this machine."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server with a catalog 1, whose user has stored a login; the environment where it has the pages' name."""
    project = {"name": "server", "version": "1", "entry-points": {"deriva_ml": {"server": "server_here"}}}
    install_plugin(tmp_path / "installed", project, A_SERVER)
    with serving(tmp_path / "hatrac") as fake:
        create_or_extend_catalog(Address(hostname=fake.hostname, credential=fake.credential()), "eye")
        stored = tmp_path / "user" / ".deriva" / "credential.json"
        stored.parent.mkdir(parents=True)
        stored.write_text(json.dumps({fake.hostname.removeprefix("http://"): fake.credential()}))
        yield {"SERVER_HERE": fake.hostname, "HOME": str(tmp_path / "user")}


@pytest.mark.parametrize("pages", READERS, ids=" ".join)
def test_a_page_runs(pages: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All its blocks run in order, without a warning of ours, and each prints what stands below it."""
    shown = [block for page in pages for block in blocks(DOCS / page)]
    environ = request.getfixturevalue("server") if any("server.org" in block.code for block in shown) else {}
    ran = run_blocks(shown, READERS[pages], tmp_path, **environ)
    assert ran.code == 0, ran.stderr
    assert not re.search(r"DerivaMLWarning|^warning: ", ran.stderr, re.MULTILINE), ran.stderr
    for number, block in enumerate(shown):
        if block.language == "text":
            assert masked(ran.printed[number - 1]) == masked(block.code), ran.printed[number - 1]


def masked(text: str) -> str:
    """What is printed without what differs between two runs and two machines."""
    for pattern, instead in (
        (r"\b\d-[0-9A-Z]{4}\b", "RID"),
        (r"\b[0-9a-f]{12,64}\b", "HASH"),
        (r"folder +\S+( *\n {12}\S+)*", "folder FOLDER"),
        (r"on +\S+(?=, process)", "on HOST"),
        (r"(?<=row of )\S+(?=;| has )", "FOLDER"),
        (r"just now|\d+ \w+ ago", "AGO"),
        (r"\d+(\.\d+)*", "0"),
        (r"[▁-█]+", "▁"),
        (r"[^\S\n]+", " "),
    ):
        text = re.sub(pattern, instead, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_block_can_be_read(page: Path) -> None:
    """Each block has a language that is tested, or is only shown; one of data is data; none stands in a list."""
    known = {"", "python", "bash", "text", *PARSED}
    assert {each.language for each in blocks(page)} <= known
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))
    for each in blocks(page):
        if each.language in PARSED:
            PARSED[each.language](each.code)


def first_cells(page: str) -> list[str]:
    """What stands in backquotes in the first cell of each row of a page's tables."""
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(.+?)`", row)]


def test_each_error_is_explained() -> None:
    """Each class of error has one row that says what it means and what to do, and no other class has."""
    explained = [name for name in first_cells("troubleshooting.md") if "_" not in name]
    assert sorted(explained) == sorted(
        set(errors.__all__) - {"DerivaMLDeprecationWarning", "DerivaMLException", "DerivaMLWarning"}
    )


def test_each_environment_variable_is_explained() -> None:
    """Each variable that a user may set has a row; those that our own processes tell each other have none."""
    source = "".join(file.read_text(encoding="utf-8") for file in (DOCS.parent / "src").rglob("*.py"))
    read = set(re.findall(r"\bDERIVA_ML_[A-Z_]+[A-Z]\b", source)) - TOLD_BETWEEN_PROCESSES
    assert {name for name in first_cells("troubleshooting.md") if name.startswith("DERIVA_ML_")} == read


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as ``make docs`` builds them."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    """The pages are built though each warning is an error; that of the mission is among them, under its own name."""
    assert {page.name for page in site.glob("*.html")} >= {f"{page.stem}.html" for page in DOCS.glob("*.md")}
    assert "Configuring and Running Executions" in (site / "executions.html").read_text(encoding="utf-8")
    assert (site / "plugins" / "index.html").is_file()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No page asks another host for a script, a style, a font or a picture."""
    loading = r"<(?:script|img|iframe|link(?! rel=.canonical))[^>]*\s(?:src|href)=.(?:https?:)?//[^>]*>"
    found = [tag for page in site.rglob("*.html") for tag in re.findall(loading, page.read_text(encoding="utf-8"))]
    found += [url for style in site.rglob("*.css") for url in re.findall(r"url\(.?(?:https?:)?//", style.read_text())]
    assert found == []


ALL_COMMANDS = {f"deriva-ml {name}": f"deriva_ml_cli.commands.{name}" for name in COMMANDS}
ALL_COMMANDS["deriva-ml-run-notebook"] = "deriva_ml_core.runner.notebook.cli"


@pytest.mark.parametrize("line", ALL_COMMANDS)
def test_the_command_line_is_all_there(site: Path, line: str) -> None:
    """The page of the command line has each command, each option of it, and examples that it takes."""
    section = section_of(site, line)
    command = get_command(import_module(ALL_COMMANDS[line]).app)
    assert [word for param in command.params for word in param.opts if word[0] == "-" and word not in section] == []
    assert "\\" not in section
    examples = re.findall(rf"^{line}\b(?! \[)([^|>&\n]*)", section, re.MULTILINE)
    assert examples
    for words in examples:
        command.make_context(line, shlex.split(words))


def test_the_command_line_of_hydra_is_there(site: Path) -> None:
    """Of deriva-ml-run the page has hydra's options and ours, as its own help says them."""
    section = section_of(site, "deriva-ml-run")
    assert [word for word in ("--multirun", "--cfg", "--config-dir", "--list-configs") if word not in section] == []


def section_of(site: Path, line: str) -> str:
    """What the page of the command line says of one command."""
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "command-line.html").read_text(encoding="utf-8")))
    return page.partition(f"\n{line}¶")[2].partition("¶")[0]
