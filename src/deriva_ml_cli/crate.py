"""An execution as a Workflow Run RO-Crate: a folder that tells other people's software what ran, on what, with what."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.crate_files import CrateFiles
from deriva_ml_cli.crate_run import CrateRun
from deriva_ml_cli.crate_words import CrateBuilder, is_web_url, unwrap_single
from deriva_ml_cli.screen import sanitize_line
from deriva_ml_cli.wording import format_count

if TYPE_CHECKING:
    from deriva_ml_cli.account import ExecutionExport
    from deriva_ml_core.client import DerivaML

__all__ = ["DEFAULT_LICENSE", "PROFILES", "write_crate"]

WORKFLOW_CRATE_PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"

PROFILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
        "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
        WORKFLOW_CRATE_PROFILE: ("Workflow RO-Crate", "1.0"),
    }
)
"""The profiles with their names and versions; without a file of code that can be named, only the first is claimed."""

EXTRA_TERMS: Mapping[str, str] = MappingProxyType(
    {
        "ContainerImage": "https://w3id.org/ro/terms/workflow-run#ContainerImage",
        "containerImage": "https://w3id.org/ro/terms/workflow-run#containerImage",
        "environment": "https://w3id.org/ro/terms/workflow-run#environment",
        "md5": "https://w3id.org/ro/terms/workflow-run#md5",
        "registry": "https://w3id.org/ro/terms/workflow-run#registry",
    }
)
"""What RO-Crate's own context does not know, so that a reader has to fetch no further one."""

DEFAULT_LICENSE = "Not stated by the run: ask its owner."


def write_crate(
    ml: DerivaML, export: ExecutionExport, target: Path, *, included_roles: frozenset[str], license_: str, as_zip: bool
) -> Path:
    """Write an execution as a crate.

    Args:
        ml: The catalog.
        export: The execution.
        target: The folder to make, or the archive.
        included_roles: Whose bytes are brought into it: ``records``, ``inputs``, ``outputs``; others are named by their URL.
        license_: The licence of what is in it, a URL or words.
        as_zip: Whether to make an archive of it.

    Returns:
        The folder, or the archive.
    """
    import tempfile

    from rocrate.rocrate import ROCrate  # type: ignore[import-untyped]

    crate = ROCrate(version="1.1")  # the version that the profiles stand on
    crate.metadata.extra_terms.update(EXTRA_TERMS)
    with tempfile.TemporaryDirectory() as brought:
        words = CrateBuilder(crate)
        files = CrateFiles(ml, words, Path(brought), included_roles)
        run = CrateRun(export, words)
        action, code = _add_run_entities(export, run, files)
        _describe_root(crate, export, run, license_, action, code)
        target.parent.mkdir(parents=True, exist_ok=True)
        # beside its place, so that what a full disk cut off is never taken for a crate
        with tempfile.TemporaryDirectory(prefix=".crate-", dir=target.parent) as draft:
            (crate.write_zip if as_zip else crate.write)(Path(draft) / target.name)
            (Path(draft) / target.name).rename(target)
    return target


def _add_run_entities(export: ExecutionExport, run: CrateRun, files: CrateFiles) -> tuple[Any, Any]:
    """The action that the run was, and the file of code where there is one."""
    instrument = run.add_instrument()
    settings, parameters = run.add_settings()
    action = run.add_action(instrument)
    inputs = [*files.add_assets("inputs", export.inputs), *(files.add_dataset(each) for each in export.input_datasets)]
    outputs = [
        *files.add_assets("outputs", export.outputs),
        *(files.add_dataset(each) for each in export.output_datasets),
    ]
    _set_property(action, "object", [*inputs, *settings])
    _set_property(action, "result", [*outputs, *run.add_metrics()])
    _set_property(action, "subjectOf", files.add_assets("records", export.records))
    code = instrument if "ComputationalWorkflow" in instrument.type else None
    if code is not None:
        _set_property(code, "input", parameters)
    return action, code


def _describe_root(crate: Any, export: ExecutionExport, run: CrateRun, license_: str, action: Any, code: Any) -> None:
    root, words = crate.root_dataset, run.builder
    root["name"] = export.title
    root["description"] = f"Execution {export.rid} as the catalog tells of it: {export.citation}"
    named = license_ if is_web_url(license_) else "#license"
    root["license"] = words.add_context_entity(
        named, "CreativeWork", {"name": license_, "description": "The licence, as told"}
    )
    root["identifier"] = export.citation
    root["mentions"] = action
    if (person := run.add_agent()) is not None:
        root["author"] = person
    claimed = [each for each in PROFILES if code is not None or "/process/" in each]
    profiles = ({"name": PROFILES[each][0], "version": PROFILES[each][1]} for each in claimed)
    _set_property(
        root, "conformsTo", [words.add_context_entity(*told) for told in zip(claimed, repeat("CreativeWork"), profiles)]
    )
    if code is not None:
        root["mainEntity"] = code
        crate.metadata["conformsTo"] = [{"@id": crate.metadata.profile}, {"@id": WORKFLOW_CRATE_PROFILE}]
    about = {"about": {"@id": "./"}}
    words.add_file("README.md", _build_readme(export).encode(), "File", about)


def _set_property(entity: Any, name: str, values: list[Any]) -> None:
    if values:
        entity[name] = unwrap_single(values)


def _build_readme(export: ExecutionExport) -> str:
    """What a person reads first."""
    code = export.code
    return "\n".join(
        [
            f"# {sanitize_line(export.title)}",
            "",
            f"An RO-Crate of one run, execution {export.rid} of the catalog that cites it as",
            f"<{export.citation}>. `ro-crate-metadata.json` tells all of it, for programs.",
            "",
            f"- state: {export.status}",
            f"- code: {sanitize_line(code.url or code.name) if code else 'not on record'}",
            f"- went in: {format_count(len(export.inputs), 'file')}, {format_count(len(export.input_datasets), 'dataset')}",
            f"- came out: {format_count(len(export.outputs), 'file')}, {format_count(len(export.output_datasets), 'dataset')}",
            "",
        ]
    )
