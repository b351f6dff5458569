"""What may stand in the way of a run on this machine, each with what to do about it."""

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

from deriva_ml_core.errors import DerivaMLException, DerivaMLWarning

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Finding", "Verdict", "examine"]

LITTLE = 2 * 10**9
"""Free bytes below which a disk is said to be nearly full."""


class Verdict(StrEnum):
    """How bad it is: fine, worth knowing, or in the way."""

    good = "good"
    doubtful = "doubtful"
    bad = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Args:
        name: What was looked at.
        verdict: How bad it is.
        said: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    said: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its value for programs."""
        return asdict(self)


def examine(host: str | None, catalog: str | None, folder: Path) -> Iterator[Finding]:
    """Look at everything that a run stands on.

    Args:
        host: The catalog's host, as on the command line.
        catalog: The catalog's number.
        folder: Where the user is, whose git repository is looked at.
    """
    yield _python()
    yield from _neighbour()
    yield _plugins()
    yield from _git(folder)
    yield from _notebooks()
    yield from _catalog(host, catalog)


def _python() -> Finding:
    from importlib.metadata import version

    words = f"deriva-ml-core {version('deriva-ml-core')} with Python {sys.version.split()[0]} in {sys.prefix}"
    return Finding("installation", Verdict.good, words)


def _neighbour() -> Iterator[Finding]:
    from deriva_ml_core.neighbours import find_neighbour

    if found := find_neighbour(sys.path):
        yield Finding(
            "deriva-ml",
            Verdict.bad,
            f"The distribution deriva-ml is installed beside this one ({found}), and brings the same package.",
            "pip uninstall deriva-ml, then pip install --force-reinstall --no-deps deriva-ml-core",
        )


def _plugins() -> Finding:
    from deriva_ml_core.plugins import list_plugins

    try:
        found = list_plugins()
    except DerivaMLException as error:
        return Finding("plugins", Verdict.bad, str(error), "deriva-ml plugins names them")
    installed = [each.name for each in found if each.distribution]
    return Finding("plugins", Verdict.good, f"{len(found)} answer, installed: {', '.join(installed) or 'none'}")


def _git(folder: Path) -> Iterator[Finding]:
    from deriva_ml_core.git import repository_state
    from deriva_ml_core.git.command import ask

    version = ask(folder, "version")
    if not version.ok:
        yield Finding(
            "git", Verdict.bad, "There is no git on the PATH: no run can say where its code is.", "install git"
        )
        return
    yield Finding("git", Verdict.good, version.lines[0])
    top = ask(folder, "rev-parse", "--show-toplevel")
    if not top.ok:
        remedy = "git config --global --add safe.directory <its folder>" if top.refused else "git init, commit, push"
        said = "Git does not trust this repository." if top.refused else f"{folder} is in no git repository."
        yield Finding("code", Verdict.doubtful, f"{said} What runs here is recorded by its path.", remedy)
        return
    state = repository_state(Path(top.lines[0]))
    if state is None or state.head is None:
        yield Finding("code", Verdict.doubtful, f"{top.lines[0]} has no commit.", "git add and git commit")
    elif state.remote is None:
        said = f"{state.root} has no remote with a web address: nobody else finds what ran."
        yield Finding("code", Verdict.doubtful, said, "git remote add origin <url>, and push")
    elif state.dirty:
        said = f"{state.root} has uncommitted changes, which are kept with each run as a patch."
        yield Finding("code", Verdict.doubtful, said, "commit before you run")
    else:
        yield Finding("code", Verdict.good, f"{state.root} at {state.head[:12]}, {state.remote}")


def _notebooks() -> Iterator[Finding]:
    from importlib.util import find_spec

    if "JPY_SESSION_NAME" not in os.environ and find_spec("ipykernel") is None:
        yield Finding("notebooks", Verdict.good, "Jupyter is not installed here; scripts need none.")
        return
    if find_spec("jupyter_server") is None:
        said = "There is a Jupyter kernel and no jupyter-server: a notebook cannot be found by asking its server."
        yield Finding("notebooks", Verdict.doubtful, said, "pip install jupyter-server, or set DERIVA_ML_WORKFLOW_URL")
        return
    from jupyter_server.serverapp import list_running_servers

    urls = [str(each.get("url")) for each in list_running_servers()]
    running = f"running: {', '.join(urls)}" if urls else "none runs now"
    yield Finding("notebooks", Verdict.good, f"Servers of notebooks can be asked; {running}.")


def _catalog(host: str | None, catalog: str | None) -> Iterator[Finding]:
    from deriva_ml_cli.opening import opened

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", DerivaMLWarning)
        ml: DerivaML | Finding
        try:
            ml = opened(host, catalog)
        except (DerivaMLException, OSError) as error:
            ml = Finding("catalog", Verdict.bad, str(error), "do what the message says")
    for each in heard:
        if issubclass(each.category, DerivaMLWarning):
            remedy = "set DERIVA_ML_HOME to a folder on a local disk"
            yield Finding("file system", Verdict.doubtful, str(each.message), remedy)
    if isinstance(ml, Finding):
        yield ml
        return
    with ml:
        for name, look in {"catalog": _rows, "folder": _store, "disk": _disk, "unsent files": _unsent}.items():
            try:
                yield look(ml)
            except (DerivaMLException, OSError) as error:
                yield Finding(name, Verdict.bad, str(error), "do what the message says")


def _rows(ml: DerivaML) -> Finding:
    from deriva_ml_core.definitions import MLTable

    catalog = ml.connection.catalog
    newest = catalog.select(MLTable.execution, order=("RCT",), descending=True, limit=1)
    last = f"the newest execution is {newest[0]['RID']}" if newest else "it has no execution yet"
    return Finding("catalog", Verdict.good, f"{catalog.name} answers; {last}")


def _store(ml: DerivaML) -> Finding:
    folder = ml.connection.folder
    with TemporaryFile(dir=folder) as file:
        file.write(b"deriva-ml doctor")
    return Finding("folder", Verdict.good, f"{folder} can be written")


def _disk(ml: DerivaML) -> Finding:
    from deriva_ml_cli.places import free_space
    from deriva_ml_cli.wording import size

    free, total = free_space(ml.connection.folder)
    said = f"{size(free)} of {size(total)} are free"
    if free < LITTLE:
        return Finding("disk", Verdict.doubtful, said, "deriva-ml cleanup")
    return Finding("disk", Verdict.good, said)


def _unsent(ml: DerivaML) -> Finding:
    from deriva_ml_cli.unsent import with_unsent

    waiting = [each.rid for each in with_unsent(ml) if not each.may_run]
    if waiting:
        named = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
        return Finding("unsent files", Verdict.doubtful, f"Files of {named} were never sent.", "deriva-ml upload")
    return Finding("unsent files", Verdict.good, "everything is sent")
