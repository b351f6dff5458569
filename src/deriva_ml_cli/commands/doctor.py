"""``deriva-ml doctor``: checks of the installation, the repository and the catalog."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Store, command
from deriva_ml_core.errors import DerivaMLException, DerivaMLWarning

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Check", "Severity", "app", "run_checks"]


Tighten = Annotated[
    bool, typer.Option("--tighten", help="Remove the access of other users to the catalog's folder and its files.")
]


@command("deriva-ml doctor", "deriva-ml doctor --host file:/data/my-catalog", "deriva-ml doctor --tighten")
def app(
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
    store: Store = None,
    tighten: Tighten = False,
) -> None:
    """Check the installation and suggest fixes.

    It checks the installation, plugins, Git, notebooks, the catalog, its store, its folder and the disk. With --store,
    you confirm the first use of the catalog's store. The exit code is 1 if a check fails.
    """
    from deriva_ml_cli.terminal import Column, can_print_unicode, create_console, print_json, print_table, safe_text
    from deriva_ml_core.paths import find_current_folder

    checks = list(run_checks(host, catalog, find_current_folder(), store=store, tighten=tighten))
    if as_json:
        print_json({"findings": [check.to_dict() for check in checks]})
    else:
        signs = "✓!✗" if can_print_unicode(create_console()) else "+!x"
        marks = dict(zip(Severity, zip(signs, ("green", "yellow", "bold red"), strict=True), strict=True))
        rows = []
        for check in checks:
            text = safe_text(check.message)
            if check.remedy:
                text.append("\n").append_text(safe_text(f"Fix: {check.remedy}", "bold"))
            rows.append((safe_text(*marks[check.severity]), check.name, text))
        print_table([Column(""), Column("", style="bold"), Column("", flexible=True, wrapped=True)], rows)
    if any(check.severity is Severity.error for check in checks):
        raise typer.Exit(1)


LOW_DISK_BYTES = 2 * 10**9
"""Free bytes below which a warning is shown."""


class Severity(StrEnum):
    """The result of a check; the values are those of the JSON output."""

    ok = "good"
    warning = "doubtful"
    error = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Args:
        name: What was checked.
        severity: Whether it passed.
        message: What was found.
        remedy: What to do; empty if it passed.
    """

    name: str
    severity: Severity
    message: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the check as ``deriva-ml doctor --json`` prints it."""
        return {"name": self.name, "verdict": self.severity, "said": self.message, "remedy": self.remedy}


def run_checks(
    host: str | None, catalog: str | None, folder: Path | None, *, store: str | None = None, tighten: bool = False
) -> Iterator[Check]:
    """Check everything that a run needs.

    Args:
        host: The catalog's host, as on the command line.
        catalog: The catalog's number.
        folder: The current folder, whose Git repository is checked; None if it was deleted.
        store: Address of the catalog's store, which confirms its first use.
        tighten: Whether to remove the access of other users to the catalog's folder.
    """
    yield _check_installation()
    yield from _check_conflicting_distribution()
    yield _check_plugins()
    yield from _check_git(folder)
    yield from _check_notebooks()
    yield from _check_catalog(host, catalog, store, tighten=tighten)


def _check_installation() -> Check:
    from importlib.metadata import version

    message = f"deriva-ml-core {version('deriva-ml-core')} with Python {sys.version.split()[0]} in {sys.prefix}"
    return Check("installation", Severity.ok, message)


def _check_conflicting_distribution() -> Iterator[Check]:
    from deriva_ml_core.user_warnings import find_conflicting_distribution

    if location := find_conflicting_distribution(sys.path):
        yield Check(
            "deriva-ml",
            Severity.error,
            f"The distribution deriva-ml ({location}) installs the same package as this one.",
            "pip uninstall deriva-ml, then pip install --force-reinstall --no-deps deriva-ml-core",
        )


def _check_plugins() -> Check:
    from deriva_ml_core.plugins import list_plugins

    try:
        plugins = list_plugins()
    except DerivaMLException as error:
        return Check("plugins", Severity.error, str(error), "see `deriva-ml plugins`")
    installed = [plugin.name for plugin in plugins if plugin.distribution]
    return Check("plugins", Severity.ok, f"{len(plugins)} registered, installed: {', '.join(installed) or 'none'}")


def _check_git(folder: Path | None) -> Iterator[Check]:
    from deriva_ml_core.git import repository_state
    from deriva_ml_core.git.command import run_git

    version = run_git(folder or Path("/"), "version")
    if not version.ok:
        yield Check(
            "git", Severity.error, "git is not on the PATH, so runs cannot record where their code is.", "install git"
        )
        return
    yield Check("git", Severity.ok, version.lines[0])
    if folder is None:
        yield Check("code", Severity.warning, "The current folder was deleted.", "change to the project's folder")
        return
    top = run_git(folder, "rev-parse", "--show-toplevel")
    if not top.ok:
        remedy = "git config --global --add safe.directory <folder>" if top.is_untrusted else "git init, commit, push"
        message = "Git does not trust this repository." if top.is_untrusted else f"{folder} is in no Git repository."
        yield Check("code", Severity.warning, f"{message} Code that runs here is recorded by its path.", remedy)
        return
    state = repository_state(Path(top.lines[0]))
    if state is None or state.head is None:
        yield Check("code", Severity.warning, f"{top.lines[0]} has no commit.", "git add and git commit")
    elif state.remote is None:
        message = f"{state.root} has no remote with a web URL, so others cannot find the code."
        yield Check("code", Severity.warning, message, "git remote add origin <url>, and push")
    elif state.dirty:
        message = f"{state.root} has uncommitted changes; each run records them as a patch."
        yield Check("code", Severity.warning, message, "commit before you run")
    elif state.pushed is False:
        message = f"No remote branch contains commit {state.head[:12]} of {state.root}, so others cannot find the code."
        yield Check("code", Severity.warning, message, "git push")
    else:
        yield Check("code", Severity.ok, f"{state.root} at {state.head[:12]}, {state.remote}")


def _check_notebooks() -> Iterator[Check]:
    from importlib.util import find_spec

    if "JPY_SESSION_NAME" not in os.environ and find_spec("ipykernel") is None:
        yield Check("notebooks", Severity.ok, "Jupyter is not installed; scripts do not need it.")
        return
    if find_spec("jupyter_server") is None:
        message = "jupyter-server is not installed, so the path of a notebook cannot be detected."
        yield Check("notebooks", Severity.warning, message, "pip install jupyter-server, or set DERIVA_ML_WORKFLOW_URL")
        return
    from jupyter_server.serverapp import list_running_servers

    urls = [str(server.get("url")) for server in list_running_servers()]
    yield Check("notebooks", Severity.ok, f"Running Jupyter servers: {', '.join(urls) or 'none'}.")


def _check_catalog(host: str | None, catalog: str | None, store: str | None, *, tighten: bool) -> Iterator[Check]:
    from deriva_ml_cli.command_options import open_client

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DerivaMLWarning)
        ml: DerivaML | Check
        try:
            ml = open_client(host, catalog, store=store)
        except (DerivaMLException, OSError) as error:
            ml = Check("catalog", Severity.error, str(error), "see the message")
    for each in caught:
        if issubclass(each.category, DerivaMLWarning):
            remedy = "set DERIVA_ML_HOME to a folder on a local disk"
            yield Check("file system", Severity.warning, str(each.message), remedy)
    if isinstance(ml, Check):
        yield ml
        return
    with ml:
        checks: dict[str, Callable[[DerivaML], Check]] = {
            "catalog": _check_catalog_rows,
            "folder": _check_folder_writable,
            "permissions": partial(_check_permissions, host=host, catalog=catalog, tighten=tighten),
            "disk": _check_disk_space,
            "unsent files": _check_unsent_files,
        }
        for name, check in checks.items():
            try:
                yield check(ml)
            except (DerivaMLException, OSError) as error:
                yield Check(name, Severity.error, str(error), "see the message")
        yield from _check_store(ml)


def _check_store(ml: DerivaML) -> Iterator[Check]:
    from deriva_ml_core.backend import check_store

    for check in check_store(ml.connection.store):
        severity = Severity.error if check.is_error else Severity.warning if check.remedy else Severity.ok
        yield Check("store", severity, check.message, check.remedy)


def _check_catalog_rows(ml: DerivaML) -> Check:
    from deriva_ml_core.definitions import MLTable

    catalog = ml.connection.catalog
    newest = catalog.select(MLTable.execution, order=("RCT",), descending=True, limit=1)
    last = f"its newest execution is {newest[0]['RID']}" if newest else "it has no execution yet"
    return Check("catalog", Severity.ok, f"{catalog.name} is available; {last}")


def _check_folder_writable(ml: DerivaML) -> Check:
    folder = ml.connection.folder
    with TemporaryFile(dir=folder) as file:
        file.write(b"deriva-ml doctor")
    return Check("folder", Severity.ok, f"{folder} is writable")


def _check_permissions(ml: DerivaML, *, host: str | None, catalog: str | None, tighten: bool) -> Check:
    """Check that other users cannot read the folder; one that a group shares is as open as the group made it."""
    from deriva_ml_core._files.permissions import is_shared_with_group

    folder = ml.connection.folder
    status = folder.stat()
    if is_shared_with_group(folder):
        return Check("permissions", Severity.ok, f"{folder} is shared with a group")
    if not status.st_mode & 0o077:
        return Check("permissions", Severity.ok, f"{folder} is readable by its owner only")
    if status.st_uid != os.geteuid():
        return Check("permissions", Severity.ok, f"{folder} belongs to another user, who lets others read it")
    if tighten:
        folder.chmod(status.st_mode & 0o700)
        return Check("permissions", Severity.ok, f"{folder} is now readable by its owner only")
    options = [*(["--host", host] if host else []), *(["--catalog", catalog] if catalog else [])]
    message = f"Other users of this machine can read {folder} and its files."
    return Check("permissions", Severity.warning, message, shlex.join(["deriva-ml", "doctor", *options, "--tighten"]))


def _check_disk_space(ml: DerivaML) -> Check:
    from deriva_ml_cli.disk_usage import free_space
    from deriva_ml_core._text import format_size

    free, total = free_space(ml.connection.folder)
    message = f"{format_size(free)} of {format_size(total)} are free"
    if free < LOW_DISK_BYTES:
        return Check("disk", Severity.warning, message, ml.connection.command("cleanup"))
    return Check("disk", Severity.ok, message)


def _check_unsent_files(ml: DerivaML) -> Check:
    from deriva_ml_cli.disk_usage import find_unsent_executions

    rids = [each.rid for each in find_unsent_executions(ml) if not each.is_possibly_running]
    if rids:
        listed = ", ".join(rids[:5]) + (f" and {len(rids) - 5} more" if len(rids) > 5 else "")
        message = f"Files of {listed} are not uploaded."
        return Check("unsent files", Severity.warning, message, ml.connection.command("upload"))
    return Check("unsent files", Severity.ok, "everything is uploaded")
