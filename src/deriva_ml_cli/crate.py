"""An execution as a Workflow Run RO-Crate: a folder that tells other people's software what ran, on what, with what."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.crate_files import CrateFiles
from deriva_ml_cli.crate_run import CrateRun
from deriva_ml_cli.crate_words import CrateWords, is_web, single
from deriva_ml_cli.screen import one_line
from deriva_ml_cli.wording import counted

if TYPE_CHECKING:
    from deriva_ml_cli.account import Account
    from deriva_ml_core.client import DerivaML

__all__ = ["LICENSE", "PROFILES", "write_crate"]

WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"

PROFILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
        "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
        WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
    }
)
"""The profiles with their names and versions; without a file of code that can be named, only the first is claimed."""

TERMS: Mapping[str, str] = MappingProxyType(
    {
        "ContainerImage": "https://w3id.org/ro/terms/workflow-run#ContainerImage",
        "containerImage": "https://w3id.org/ro/terms/workflow-run#containerImage",
        "environment": "https://w3id.org/ro/terms/workflow-run#environment",
        "md5": "https://w3id.org/ro/terms/workflow-run#md5",
        "registry": "https://w3id.org/ro/terms/workflow-run#registry",
    }
)
"""What RO-Crate's own context does not know, so that a reader has to fetch no further one."""

LICENSE = "Not stated by the run: ask its owner."


def write_crate(
    ml: DerivaML, account: Account, into: Path, *, included: frozenset[str], license_: str, zipped: bool
) -> Path:
    """Write an execution as a crate.

    Args:
        ml: The catalog.
        account: The execution.
        into: The folder to make, or the archive.
        included: Whose bytes are brought into it: ``records``, ``inputs``, ``outputs``; others are named by their URL.
        license_: The licence of what is in it, a URL or words.
        zipped: Whether to make an archive of it.

    Returns:
        The folder, or the archive.
    """
    import tempfile

    from rocrate.rocrate import ROCrate  # type: ignore[import-untyped]

    crate = ROCrate(version="1.1")  # the version that the profiles stand on
    crate.metadata.extra_terms.update(TERMS)
    with tempfile.TemporaryDirectory() as brought:
        words = CrateWords(crate)
        files = CrateFiles(ml, words, Path(brought), included)
        run = CrateRun(account, words)
        action, code = _told(account, run, files)
        _describe(crate, account, run, license_, action, code)
        into.parent.mkdir(parents=True, exist_ok=True)
        # beside its place, so that what a full disk cut off is never taken for a crate
        with tempfile.TemporaryDirectory(prefix=".crate-", dir=into.parent) as draft:
            (crate.write_zip if zipped else crate.write)(Path(draft) / into.name)
            (Path(draft) / into.name).rename(into)
    return into


def _told(account: Account, run: CrateRun, files: CrateFiles) -> tuple[Any, Any]:
    """The action that the run was, and the file of code where there is one."""
    instrument = run.instrument()
    settings, parameters = run.settings()
    action = run.action(instrument)
    inputs = [*files.parts("inputs", account.inputs), *(files.dataset(each) for each in account.datasets)]
    outputs = [*files.parts("outputs", account.outputs), *(files.dataset(each) for each in account.made)]
    _say(action, "object", [*inputs, *settings])
    _say(action, "result", [*outputs, *run.metrics()])
    _say(action, "subjectOf", files.parts("records", account.records))
    code = instrument if "ComputationalWorkflow" in instrument.type else None
    if code is not None:
        _say(code, "input", parameters)
    return action, code


def _describe(crate: Any, account: Account, run: CrateRun, license_: str, action: Any, code: Any) -> None:
    root, words = crate.root_dataset, run.words
    root["name"] = account.title
    root["description"] = f"Execution {account.rid} as the catalog tells of it: {account.citation}"
    named = license_ if is_web(license_) else "#license"
    root["license"] = words.entity(named, "CreativeWork", {"name": license_, "description": "The licence, as told"})
    root["identifier"] = account.citation
    root["mentions"] = action
    if (person := run.person()) is not None:
        root["author"] = person
    claimed = [each for each in PROFILES if code is not None or "/process/" in each]
    profiles = ({"name": PROFILES[each][0], "version": PROFILES[each][1]} for each in claimed)
    _say(root, "conformsTo", [words.entity(*told) for told in zip(claimed, repeat("CreativeWork"), profiles)])
    if code is not None:
        root["mainEntity"] = code
        crate.metadata["conformsTo"] = [{"@id": crate.metadata.profile}, {"@id": WORKFLOW_CRATE}]
    about = {"about": {"@id": "./"}}
    words.included("README.md", _readme(account).encode(), "File", about)


def _say(entity: Any, name: str, values: list[Any]) -> None:
    if values:
        entity[name] = single(values)


def _readme(account: Account) -> str:
    """What a person reads first."""
    code = account.code
    return "\n".join(
        [
            f"# {one_line(account.title)}",
            "",
            f"An RO-Crate of one run, execution {account.rid} of the catalog that cites it as",
            f"<{account.citation}>. `ro-crate-metadata.json` tells all of it, for programs.",
            "",
            f"- state: {account.status}",
            f"- code: {one_line(code.url or code.name) if code else 'not on record'}",
            f"- went in: {counted(len(account.inputs), 'file')}, {counted(len(account.datasets), 'dataset')}",
            f"- came out: {counted(len(account.outputs), 'file')}, {counted(len(account.made), 'dataset')}",
            "",
        ]
    )
