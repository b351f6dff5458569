"""docs/: the blocks of each page run as one program and print what the page shows; each public name has an entry."""

from __future__ import annotations

import ast
import html
import importlib.util
import inspect
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from xml.etree import ElementTree

import pytest
import yaml
from typer.main import get_command

import deriva_ml_core
from deriva_ml_cli.app import COMMANDS
from deriva_ml_core import _deprecation, errors
from deriva_ml_core.backends.deriva import create_or_extend_catalog
from deriva_ml_core.models import Address
from engines.postgres import PostgresServer
from engines.s3 import ACCESS_KEY, SECRET_KEY, S3Service
from fakes.deriva_server import serving
from page_program import TRAINING_PRELUDE, PageRun, install_plugin, run_blocks
from pages import Block, blocks, split_console

REQUIRED = ("pytorch_lightning", "keras", "hydra_zen", "papermill", "joblib", "prov")

if any(importlib.util.find_spec(name) is None for name in REQUIRED):
    pytest.skip(f"running the pages needs {', '.join(REQUIRED)}", allow_module_level=True)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

STAGED_RUN = """\
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

workflow = Workflow(name="Earlier", workflow_type="Training", url="https://example.org/earlier.py")
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as earlier:
    earlier.asset_file_path("Model", "earlier.pt").write_text("never uploaded")
"""

PRELUDES: dict[tuple[str, ...], str] = {
    ("agents.md",): "",
    ("coming-from.md",): "",
    ("comparing-runs.md",): "",
    ("how-it-works.md",): "",
    ("hydra-zen.md",): "",
    ("index.md", "training.md"): TRAINING_PRELUDE,
    ("notebooks.md",): "",
    ("quick-start.md",): "",
    ("renamed.md",): "",
    ("running-models-and-notebooks.md",): "",
    ("postgresql.md",): "",
    ("s3-store.md",): "",
    ("servers.md",): "",
    ("sharing-and-backup.md",): "",
    ("sweeps.md",): "",
    ("troubleshooting.md",): STAGED_RUN,
    ("writing-an-integration.md",): "",
}
"""Pages that are read one after the other, and the Python code that their reader has already run."""

INTERNAL_VARIABLES = {
    f"DERIVA_ML_{name}" for name in ("EXECUTIONS", "HYDRA_OVERRIDES", "NOTEBOOK_COMMAND", "NOTEBOOK_RUN")
}
"""Environment variables that pass between our own processes; users do not set them."""

PARSERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}

MAX_LINE_LENGTH = 85
"""Characters of a code line that fit on a page."""

PUBLIC_MODULES = (
    "deriva_ml",
    "deriva_ml.core",
    "deriva_ml.dataset",
    "deriva_ml.execution",
    "deriva_ml_core",
    "deriva_ml_core.backend",
    "deriva_ml_core.errors",
    "deriva_ml_core.hookspecs",
    "deriva_ml_core.plugins",
    "deriva_ml_core.schema",
    "deriva_ml_core.testing",
    "deriva_ml_core.training",
    "deriva_ml_keras",
    "deriva_ml_lightning",
)
"""The modules whose ``__all__`` is documented under docs/reference."""

RESULT_MODULES = (
    "deriva_ml_core.deletion",
    "deriva_ml_core.push",
    *(f"deriva_ml_core.analysis.{name}" for name in ("compare", "describe", "lineage", "reproduce", "runs", "verify")),
)
"""The modules whose public classes are documented there: the results of `DerivaML`."""


def test_every_page_is_run() -> None:
    """Each page with a block of Python or shell is run."""
    runnable = {"python", "bash", "console"}
    pages = {page.name for page in DOCS.glob("*.md") if runnable & {block.language for block in blocks(page)}}
    assert pages == {page for pages in PRELUDES for page in pages}


SERVER_PLUGIN = """\
import os

from deriva_ml_core.backends.deriva import create_or_extend_catalog, open_backend
from deriva_ml_core.plugins import hookimpl


def replace_hostname(address):
    if address.hostname != "server.org":
        return None
    return address.model_copy(update={"hostname": os.environ["LOCAL_SERVER"]})


@hookimpl(tryfirst=True)
def connect(address):
    from pathlib import Path

    local = replace_hostname(address)
    return local and open_backend(local, Path(os.environ["DERIVA_ML_HOME"]))


@hookimpl(tryfirst=True)
def create_catalog(address, project_name, acls):
    local = replace_hostname(address)
    return local and create_or_extend_catalog(local, project_name, acls)
"""
"""A plugin that maps the host name on the pages to a server on this machine."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server with a catalog 1, whose user has a stored login; the environment that maps the pages' name to it."""
    project = {"name": "server", "version": "1", "entry-points": {"deriva_ml": {"server": "local_server"}}}
    install_plugin(tmp_path / "installed", project, SERVER_PLUGIN)
    with serving(tmp_path / "hatrac") as fake:
        create_or_extend_catalog(Address(hostname=fake.hostname, credential=fake.credential()), "eye")
        stored = tmp_path / "user" / ".deriva" / "credential.json"
        stored.parent.mkdir(parents=True)
        stored.write_text(json.dumps({fake.hostname.removeprefix("http://"): fake.credential()}))
        yield {"LOCAL_SERVER": fake.hostname, "HOME": str(tmp_path / "user")}


S3_PLUGIN = """\
import os

from deriva_ml_core.plugins import hookimpl


@hookimpl(tryfirst=True)
def create_catalog(address, project_name, acls):
    if "https://s3.example.org" not in (address.store or ""):
        return None
    from deriva_ml_core.backends.embedded import create_with_store
    from deriva_ml_core.paths import embedded_catalog_folder

    store = address.store.replace("https://s3.example.org", os.environ["LOCAL_S3"])
    create_with_store(embedded_catalog_folder(address.hostname), store)
    return ""
"""
"""A plugin that maps the endpoint on a page to a service on this machine."""


@pytest.fixture
def s3_service(tmp_path: Path, seaweedfs: S3Service) -> dict[str, str]:
    """A service with the bucket of the page; the environment that maps the page's endpoint to it."""
    project = {"name": "s3", "version": "1", "entry-points": {"deriva_ml": {"s3": "local_s3"}}}
    install_plugin(tmp_path / "installed", project, S3_PLUGIN)
    seaweedfs.client().create_bucket(Bucket="runs")
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return {"LOCAL_S3": seaweedfs.endpoint, "HOME": str(tmp_path / "user"), **keys}


POSTGRES_PLUGIN = """\
import os

from deriva_ml_core.plugins import hookimpl


def local(address):
    store = address.store and address.store.replace("/srv/runs", os.environ["LOCAL_STORE"])
    return os.environ["LOCAL_POSTGRES"], store


@hookimpl(tryfirst=True)
def create_catalog(address, project_name, acls):
    from deriva_ml_core.backends.postgres import create_backend

    create_backend(*local(address))
    return ""


@hookimpl(tryfirst=True)
def connect(address):
    from deriva_ml_core.backends.postgres import open_backend
    from deriva_ml_core.paths import home_folder

    uri, store = local(address)
    return open_backend(uri, home_folder(), store)
"""
"""A plugin that maps the database and the folder on a page to those on this machine."""


@pytest.fixture
def postgres_service(tmp_path: Path, postgres: PostgresServer) -> dict[str, str]:
    """A database; the environment that maps the page's address to it."""
    project = {"name": "pg", "version": "1", "entry-points": {"deriva_ml": {"pg": "local_postgres"}}}
    install_plugin(tmp_path / "installed", project, POSTGRES_PLUGIN)
    return {"LOCAL_POSTGRES": postgres.uri(postgres.create_database()), "LOCAL_STORE": str(tmp_path / "store")}


@pytest.mark.parametrize("pages", PRELUDES, ids=" ".join)
def test_page_runs(pages: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All blocks of a page run in order without our warnings, and each prints what the page shows."""
    if "agents.md" in pages:
        pytest.importorskip("mcp", reason="the extra mcp is not installed")
    program = [block for page in pages for block in blocks(DOCS / page)]
    environ = request.getfixturevalue("server") if any("server.org" in block.code for block in program) else {}
    if any("s3.example.org" in block.code for block in program):
        environ = request.getfixturevalue("s3_service")
    if any("db.example.org" in block.code for block in program if block.language == "python"):
        environ = request.getfixturevalue("postgres_service")
    page_run = run_blocks(program, PRELUDES[pages], tmp_path, **environ)
    assert page_run.code == 0, page_run.stderr
    assert not re.search(r"DerivaMLWarning|^warning: ", page_run.stderr, re.MULTILINE), page_run.stderr
    for shown, printed in shown_and_printed(program, page_run):
        assert mask(printed) == mask(shown), printed


def shown_and_printed(program: list[Block], page_run: PageRun) -> Iterator[tuple[str, str]]:
    """Yield each output that a page shows with the output that its commands printed."""
    for number, block in enumerate(program):
        if block.language == "text":
            yield block.code, page_run.printed[number - 1]
        elif block.language == "console" and (output := split_console(block.code)[1]).strip():
            yield output, page_run.printed[number]


def mask(text: str) -> str:
    """Replace what differs between two runs and two machines."""
    for pattern, replacement in (
        (r"\b\d-[0-9A-Z]{4}\b", "RID"),
        (r"\b[0-9a-f]{12,64}\b", "HASH"),
        (r"code +\S+( *\n {12}\S+)*", "code URL"),
        (r"folder +\S+( *\n {12}\S+)*", "folder FOLDER"),
        (r"on +\S+(?=, process)", "on HOST"),
        (r"(?m)^ +by +\S+ *$", "by USER"),
        (r"(?<=row of )\S+(?=;| has )", "FOLDER"),
        (r"just now|\d+ \w+ ago", "AGO"),
        (r"\d+(\.\d+)*", "0"),
        (r"[▁-█]+", "▁"),
        (r"[^\S\n]+", " "),
    ):
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


ALL_PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", *(ROOT / "plugins").rglob("README.md")])


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_can_be_read(page: Path) -> None:
    """Each block has a known language, data parses, no block is in a list, and lines fit the page."""
    languages = {"", "python", "bash", "console", "sql", "text", *PARSERS}
    assert {block.language for block in blocks(page)} <= languages
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert [line for line in block.code.splitlines() if len(line) > MAX_LINE_LENGTH] == []
        if block.language in PARSERS:
            PARSERS[block.language](block.code)
        if block.language == "bash":
            assert not re.search(r"\b\d-[0-9A-Z]{4}\b", block.code), "a command with a RID is in a console block"


def first_cells(page: str) -> list[str]:
    """Return the names in backquotes in the first cell of each table row of a page."""
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(.+?)`", row)]


def test_each_error_is_explained() -> None:
    """Each error class has one row that explains it, and each row is about an error class."""
    explained = [name for name in first_cells("troubleshooting.md") if "_" not in name]
    root_classes = {"DerivaMLException", "DerivaMLWarning", "DerivaMLDeprecationWarning"}
    assert sorted(explained) == sorted(set(errors.__all__) - root_classes)


def test_each_environment_variable_is_explained() -> None:
    """Each variable that a user can set has a row; internal ones have none."""
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"\bDERIVA_ML_[A-Z_]+[A-Z]\b", source)) - INTERNAL_VARIABLES
    assert {name for name in first_cells("troubleshooting.md") if name.startswith("DERIVA_ML_")} == read


def test_renamed_names_are_complete() -> None:
    """The page of renamed names lists each deprecated name of the code, its replacement, and the removing version."""
    text = (DOCS / "renamed.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|", text, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert {old: new.replace("`", "") for old, new in rows} == deprecated_names_of_the_code()
    assert _deprecation.REMOVED_IN in text


def deprecated_names_of_the_code() -> dict[str, str]:
    """Return the replacement of each deprecated name; attributes as ``Class.name``, keywords as ``function(name=)``."""
    names = {}
    for module in [deriva_ml_core, *walk_modules(deriva_ml_core)]:
        for name, value in list(vars(module).items()):
            if name == "__getattr__":
                names |= names_of(value)
            elif isinstance(value, type) and value.__module__ == module.__name__:
                names |= names_of_class(value)
            elif getattr(value, "__module__", None) == module.__name__:
                names |= {f"{name}({old}=)": f"{name}({new}=)" for old, new in names_of(value).items()}
    return names


def names_of_class(cls: type) -> dict[str, str]:
    """Return the deprecated attributes of a class, without inherited ones, and the keywords of its methods."""
    # the stores of both backends implement one protocol
    owner = "ObjectStore" if cls.__name__ in ("DerivaStore", "FolderStore") else cls.__name__
    inherited = {old for base in cls.__mro__[1:] for old in names_of(vars(base).get("__getattr__"))}
    names = {}
    for name, value in vars(cls).items():
        found = names_of(value)
        if name == "__getattr__":
            names |= {f"{owner}.{old}": new for old, new in found.items() if old not in inherited}
        else:
            method = owner if name == "__init__" else f"{owner}.{name}"
            names |= {f"{method}({old}=)": f"{method}({new}=)" for old, new in found.items()}
    return names


def names_of(value: object) -> dict[str, str]:
    """Return the names that a function of `_deprecation` resolves."""
    if not isinstance(value, FunctionType) or value.__code__.co_filename != _deprecation.__file__:
        return {}
    names = inspect.getclosurevars(value).nonlocals.get("names", {})
    return {old: new if isinstance(new, str) else new[0] for old, new in names.items()}


def walk_modules(package: ModuleType) -> Iterator[ModuleType]:
    """Yield all modules of a package."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield import_module(module.name)


def test_options_of_a_training_are_complete(site: Path) -> None:
    """The table names each field of `TrainingOptions` with its default, in order."""
    from deriva_ml_core.training import TrainingOptions

    page = html.unescape(re.sub(r"</?code>", "`", (site / "training.html").read_text(encoding="utf-8")))
    rows = re.findall(r"<td>`([a-z_]+)=(.+?)`</td>", page)
    defaults = {name: field.default for name, field in TrainingOptions.model_fields.items()}
    assert [(name, ast.literal_eval(default)) for name, default in rows] == list(defaults.items())


def test_each_public_name_is_documented_once() -> None:
    """Each name of a public ``__all__`` is on exactly one reference page, and the pages have no other name."""
    modules = (*PUBLIC_MODULES, *RESULT_MODULES)
    public = {public_key(import_module(module), name) for module in modules for name in exported(module)}
    documented = [
        public_key(*resolve(identifier))
        for page in (DOCS / "reference").glob("*.md")
        for identifier in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(documented) == sorted(public)


def exported(module: str) -> list[str]:
    """Return the public names of a module; of a module with results, its public classes."""
    names = list(import_module(module).__all__)
    if module in RESULT_MODULES:
        names = [name for name in names if isinstance(getattr(import_module(module), name), type)]
    return names


def resolve(identifier: str) -> tuple[ModuleType, str]:
    """Return the module and the name of a dotted identifier."""
    module, _, name = identifier.rpartition(".")
    return import_module(module), name


def public_key(module: ModuleType, name: str) -> str:
    """Return the same key for all import paths of an object."""
    value = getattr(module, name)
    is_named = getattr(value, "__qualname__", None) == name
    return f"{value.__module__}.{name}" if is_named else name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as ``make docs`` builds them."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_site_builds(site: Path) -> None:
    """The strict build succeeds and contains all pages, the mission document among them."""
    assert {page.name for page in site.glob("*.html")} >= {f"{page.stem}.html" for page in DOCS.glob("*.md")}
    assert "Configuring and Running Executions" in (site / "executions.html").read_text(encoding="utf-8")
    assert (site / "plugins" / "index.html").is_file()


def test_llms_txt_lists_every_page(site: Path) -> None:
    """The file names the project, and each page with its title and a sentence about it."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# deriva-ml-core\n\n> Provenance for machine-learning runs\n")
    lines = re.findall(r"^- \[([^\]]+)\]\((\S+)\): (.+)$", text, re.MULTILINE)
    listed = {url: (title, sentence) for title, url, sentence in lines}
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")} - {"404.html"}
    assert set(listed) == built
    assert listed["servers.html"] == ("Deriva servers", "The embedded catalog is for one machine.")
    assert listed["index.html"][0] == "deriva-ml-core"
    for title, sentence in listed.values():
        assert len(title) > 2
        assert sentence.endswith((".", ":"))
        assert 15 < len(sentence) <= 300
        assert not re.search(r"[\[\]`*]|:::", sentence)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Pages",
        "Recording runs",
        "Using the record",
        "Extending",
        "Reference",
        "API",
        "Background",
    ]


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    """No page loads a script, style, font or picture from another host."""
    loading = r"<(?:script|img|iframe|link(?! rel=.canonical))[^>]*\s(?:src|href)=.(?:https?:)?//[^>]*>"
    found = [tag for page in site.rglob("*.html") for tag in re.findall(loading, page.read_text(encoding="utf-8"))]
    styles = [*site.rglob("*.css"), *site.rglob("*.svg")]
    found += [url for style in styles for url in re.findall(r"url\(.?(?:https?:)?//", style.read_text())]
    assert found == []


def test_pictures_are_portable() -> None:
    """The pictures are valid SVG, and name no folder of the machine that drew them."""
    pictures = list((DOCS / "images").glob("*.svg"))
    assert {picture.stem for picture in pictures} == {"show", "lineage"}
    for picture in pictures:
        root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
        text = "".join(root.itertext()).replace("\xa0", " ")
        assert not re.search(r"(?<!\S)/(?:home|root|tmp|Users|work)\b", text)


def test_screenshots() -> None:
    """The five pages of the web page have a picture, which is as wide as the browser that took it."""
    pictures = {picture.stem: picture.read_bytes() for picture in (DOCS / "images").glob("page-*.png")}
    assert set(pictures) == {"page-runs", "page-run", "page-compare", "page-dataset", "page-workflow"}
    assert {int.from_bytes(content[16:20], "big") for content in pictures.values()} == {1280}


def test_search_works_from_a_folder(site: Path) -> None:
    """The index is also a script, and each page loads the worker that browsers need for local files."""
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="javascripts/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "javascripts" / "iframe-worker.js").is_file()


def test_built_code_lines_fit(site: Path) -> None:
    """No line of a code block on a built page is longer than the page is wide."""
    long_lines = [
        f"{page.relative_to(site)}: {line}"
        for page in site.rglob("*.html")
        for block in re.findall(r"<pre\b[^>]*>(.*?)</pre>", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in html.unescape(re.sub(r"<[^>]+>", "", block)).splitlines()
        if len(line) > MAX_LINE_LENGTH
    ]
    # the mission document is published as it was written
    assert [line for line in long_lines if not line.startswith("executions.html")] == []


ALL_COMMANDS = {f"deriva-ml {name}": f"deriva_ml_cli.commands.{name}" for name in COMMANDS}
ALL_COMMANDS["deriva-ml-run-notebook"] = "deriva_ml_core.runner.notebook.cli"


@pytest.mark.parametrize("line", ALL_COMMANDS)
def test_command_is_documented(site: Path, line: str) -> None:
    """The command-line page has each command with all its options, and its examples parse."""
    section = command_section(site, line)
    command = get_command(import_module(ALL_COMMANDS[line]).app)
    assert [
        option for param in command.params for option in param.opts if option[0] == "-" and option not in section
    ] == []
    assert "\\" not in section
    examples = re.findall(rf"^(?:\$ )?{line}\b(?! \[)((?:'[^'\n]*'|[^|>&\n'])*)", section, re.MULTILINE)
    assert examples
    for arguments in examples:
        command.make_context(line, shlex.split(arguments))


def test_hydra_command_is_documented(site: Path) -> None:
    """The section of deriva-ml-run has Hydra's options and ours."""
    section = command_section(site, "deriva-ml-run")
    options = ("--multirun", "--cfg", "--config-dir", "--list-configs")
    assert [option for option in options if option not in section] == []


def command_section(site: Path, line: str) -> str:
    """Return the text of one command on the command-line page."""
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "command-line.html").read_text(encoding="utf-8")))
    return page.partition(f"\n{line}¶")[2].partition("¶")[0]
