"""``deriva-ml doctor``: whether this machine is ready for runs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command
from deriva_ml_core.errors import DerivaMLException, DerivaMLWarning

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Check", "Severity", "app", "run_checks"]


@command("deriva-ml doctor", "deriva-ml doctor --host file:/data/my-catalog")
def app(as_json: AsJson = False, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Look at what runs stand on, and say what to do.

    That are installation, plugins, git, notebooks, catalog and disk. It ends with 1 where something stands in the way.
    """
    from deriva_ml_cli.terminal import Column, can_print_unicode, create_console, print_json, print_table, safe_text

    found = list(run_checks(host, catalog, Path.cwd()))
    if as_json:
        print_json({"findings": [each.to_dict() for each in found]})
    else:
        signs = "✓!✗" if can_print_unicode(create_console()) else "+!x"
        looks = dict(zip(Severity, zip(signs, ("green", "yellow", "bold red"), strict=True), strict=True))
        rows = []
        for each in found:
            said = safe_text(each.said)
            if each.remedy:
                said.append("\n").append_text(safe_text(f"To do: {each.remedy}", "bold"))
            rows.append((safe_text(*looks[each.verdict]), each.name, said))
        print_table([Column(""), Column("", style="bold"), Column("", flexible=True, wrapped=True)], rows)
    if any(each.verdict is Severity.error for each in found):
        raise typer.Exit(1)


LOW_DISK_BYTES = 2 * 10**9
"""Free bytes below which a disk is said to be nearly full."""


class Severity(StrEnum):
    """How bad it is: fine, worth knowing, or in the way."""

    ok = "good"
    warning = "doubtful"
    error = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found.

    Args:
        name: What was looked at.
        verdict: How bad it is.
        said: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    verdict: Severity
    said: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its value for programs."""
        return asdict(self)


def run_checks(host: str | None, catalog: str | None, folder: Path) -> Iterator[Check]:
    """Look at everything that a run stands on.

    Args:
        host: The catalog's host, as on the command line.
        catalog: The catalog's number.
        folder: Where the user is, whose git repository is looked at.
    """
    yield _check_installation()
    yield from _check_conflicting_distribution()
    yield _check_plugins()
    yield from _check_git(folder)
    yield from _check_notebooks()
    yield from _check_catalog(host, catalog)


def _check_installation() -> Check:
    from importlib.metadata import version

    words = f"deriva-ml-core {version('deriva-ml-core')} with Python {sys.version.split()[0]} in {sys.prefix}"
    return Check("installation", Severity.ok, words)


def _check_conflicting_distribution() -> Iterator[Check]:
    from deriva_ml_core.user_warnings import find_conflicting_distribution

    if found := find_conflicting_distribution(sys.path):
        yield Check(
            "deriva-ml",
            Severity.error,
            f"The distribution deriva-ml is installed beside this one ({found}), and brings the same package.",
            "pip uninstall deriva-ml, then pip install --force-reinstall --no-deps deriva-ml-core",
        )


def _check_plugins() -> Check:
    from deriva_ml_core.plugins import list_plugins

    try:
        found = list_plugins()
    except DerivaMLException as error:
        return Check("plugins", Severity.error, str(error), "deriva-ml plugins names them")
    installed = [each.name for each in found if each.distribution]
    return Check("plugins", Severity.ok, f"{len(found)} answer, installed: {', '.join(installed) or 'none'}")


def _check_git(folder: Path) -> Iterator[Check]:
    from deriva_ml_core.git import repository_state
    from deriva_ml_core.git.command import run_git

    version = run_git(folder, "version")
    if not version.ok:
        yield Check(
            "git", Severity.error, "There is no git on the PATH: no run can say where its code is.", "install git"
        )
        return
    yield Check("git", Severity.ok, version.lines[0])
    top = run_git(folder, "rev-parse", "--show-toplevel")
    if not top.ok:
        remedy = (
            "git config --global --add safe.directory <its folder>" if top.is_untrusted else "git init, commit, push"
        )
        said = "Git does not trust this repository." if top.is_untrusted else f"{folder} is in no git repository."
        yield Check("code", Severity.warning, f"{said} What runs here is recorded by its path.", remedy)
        return
    state = repository_state(Path(top.lines[0]))
    if state is None or state.head is None:
        yield Check("code", Severity.warning, f"{top.lines[0]} has no commit.", "git add and git commit")
    elif state.remote is None:
        said = f"{state.root} has no remote with a web address: nobody else finds what ran."
        yield Check("code", Severity.warning, said, "git remote add origin <url>, and push")
    elif state.dirty:
        said = f"{state.root} has uncommitted changes, which are kept with each run as a patch."
        yield Check("code", Severity.warning, said, "commit before you run")
    else:
        yield Check("code", Severity.ok, f"{state.root} at {state.head[:12]}, {state.remote}")


def _check_notebooks() -> Iterator[Check]:
    from importlib.util import find_spec

    if "JPY_SESSION_NAME" not in os.environ and find_spec("ipykernel") is None:
        yield Check("notebooks", Severity.ok, "Jupyter is not installed here; scripts need none.")
        return
    if find_spec("jupyter_server") is None:
        said = "There is a Jupyter kernel and no jupyter-server: a notebook cannot be found by asking its server."
        yield Check("notebooks", Severity.warning, said, "pip install jupyter-server, or set DERIVA_ML_WORKFLOW_URL")
        return
    from jupyter_server.serverapp import list_running_servers

    urls = [str(each.get("url")) for each in list_running_servers()]
    running = f"running: {', '.join(urls)}" if urls else "none runs now"
    yield Check("notebooks", Severity.ok, f"Servers of notebooks can be asked; {running}.")


def _check_catalog(host: str | None, catalog: str | None) -> Iterator[Check]:
    from deriva_ml_cli.command_options import open_client

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", DerivaMLWarning)
        ml: DerivaML | Check
        try:
            ml = open_client(host, catalog)
        except (DerivaMLException, OSError) as error:
            ml = Check("catalog", Severity.error, str(error), "do what the message says")
    for each in heard:
        if issubclass(each.category, DerivaMLWarning):
            remedy = "set DERIVA_ML_HOME to a folder on a local disk"
            yield Check("file system", Severity.warning, str(each.message), remedy)
    if isinstance(ml, Check):
        yield ml
        return
    with ml:
        for name, look in {
            "catalog": _check_catalog_rows,
            "folder": _check_folder_writable,
            "disk": _check_disk_space,
            "unsent files": _check_unsent_files,
        }.items():
            try:
                yield look(ml)
            except (DerivaMLException, OSError) as error:
                yield Check(name, Severity.error, str(error), "do what the message says")


def _check_catalog_rows(ml: DerivaML) -> Check:
    from deriva_ml_core.definitions import MLTable

    catalog = ml.connection.catalog
    newest = catalog.select(MLTable.execution, order=("RCT",), descending=True, limit=1)
    last = f"the newest execution is {newest[0]['RID']}" if newest else "it has no execution yet"
    return Check("catalog", Severity.ok, f"{catalog.name} answers; {last}")


def _check_folder_writable(ml: DerivaML) -> Check:
    folder = ml.connection.folder
    with TemporaryFile(dir=folder) as file:
        file.write(b"deriva-ml doctor")
    return Check("folder", Severity.ok, f"{folder} can be written")


def _check_disk_space(ml: DerivaML) -> Check:
    from deriva_ml_cli.disk_usage import free_space
    from deriva_ml_core._text import format_size

    free, total = free_space(ml.connection.folder)
    said = f"{format_size(free)} of {format_size(total)} are free"
    if free < LOW_DISK_BYTES:
        return Check("disk", Severity.warning, said, "deriva-ml cleanup")
    return Check("disk", Severity.ok, said)


def _check_unsent_files(ml: DerivaML) -> Check:
    from deriva_ml_cli.disk_usage import find_unsent_executions

    waiting = [each.rid for each in find_unsent_executions(ml) if not each.is_possibly_running]
    if waiting:
        named = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
        return Check("unsent files", Severity.warning, f"Files of {named} were never sent.", "deriva-ml upload")
    return Check("unsent files", Severity.ok, "everything is sent")
