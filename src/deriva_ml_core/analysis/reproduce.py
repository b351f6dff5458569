"""A run rebuilt in a folder: its code, its inputs, its records, and the command that ran it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from deriva_ml_core.analysis.compare import Difference, environment_sections, find_differences
from deriva_ml_core.analysis.describe import fetch_metadata_file, load_configuration, load_environment, safe_file_name
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.definitions import MLAsset, Role
from deriva_ml_core.errors import FileConflict, NotReproducible
from deriva_ml_core.execution.recorded import lookup_execution
from deriva_ml_core.git import checkout_commit
from deriva_ml_core.models import Asset

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection

__all__ = ["Reproduction", "reproduce_execution"]

COMPUTE_VARIABLES = re.compile(
    r"(?:CUBLAS|CUDNN|HF|HIP|JAX|KERAS|MKL|NCCL|NUMEXPR|OMP|OPENBLAS|PYTORCH|TF|TORCH|TORCHINDUCTOR|XLA)_.*|PYTHONHASHSEED"
)
"""The variables that change what a run computes, wherever it runs."""

PATCH_FILE = "uncommitted.patch"
REDACTED_PREFIX = "[redacted:"
MACHINE_SPECIFIC_NAMES = ("command", "hostname", "user", "working directory", "python's folder")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A run that can be done again.

    Args:
        folder: Where everything is.
        code: The work tree in it.
        commit: The commit that is checked out there.
        source: The repository, or the address, that it came from.
        patched: Whether uncommitted changes were applied to it.
        left_out: What of the uncommitted changes had not been kept.
        command: What ran, for this machine; empty where that is not known.
        place: The folder that it runs in.
        variables: The environment variables that it had, and that this terminal has not.
        redacted: The values that were secret, by name: they have to be given again.
        differing: What differs between the environment then and now.
        inputs: The files that went in, and the bags of datasets.
        records: The files that describe the run.
    """

    folder: Path
    code: Path
    commit: str
    source: str
    patched: bool
    left_out: tuple[str, ...]
    command: tuple[str, ...]
    place: Path
    variables: Mapping[str, str]
    redacted: tuple[str, ...]
    differing: tuple[Difference, ...]
    inputs: tuple[Path, ...]
    records: tuple[Path, ...]

    @property
    def line(self) -> str:
        """The command as a shell takes it; empty where there is none."""
        given = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return (
            f"cd {shlex.quote(str(self.place))} && {' '.join([*given, shlex.join(self.command)])}"
            if self.command
            else ""
        )


def reproduce_execution(
    connection: Connection, rid: str, target: Path, repository: Path | None, *, include_inputs: bool
) -> Reproduction:
    """Rebuild a run: the repository's commit with what was not committed, the inputs, and the records.

    Args:
        connection: The catalog.
        rid: The execution.
        target: The folder to make.
        repository: A clone that has the commit; those around this terminal and of the run itself are tried too.
        include_inputs: Whether to bring the inputs.

    Raises:
        InvalidRID, UnknownRID, WrongTable: There is no such execution.
        FileConflict: The folder is there already.
        NotReproducible: It ran in no repository, or nobody has the commit any more.
    """
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    recorded = snapshot.get("repository") or {}
    if not recorded.get("head"):
        raise NotReproducible(
            f"Execution {rid} {_explain_missing_commit(snapshot)}, so its code cannot be checked "
            f"out.{_suggest_container_command(snapshot)}"
        )
    if target.exists():
        raise FileConflict(f"{target} is there already: name another folder with --into.")
    target.mkdir(parents=True)
    patch = _read_patch(connection, assets, execution.working_dir)
    nearby = [each for each in (repository, Path.cwd(), Path(str(recorded.get("root")))) if each is not None]
    try:
        source = checkout_commit(
            recorded["head"], target / "code", patch=patch, repositories=nearby, remote=recorded.get("remote")
        )
    except NotReproducible:
        if not any(target.iterdir()):
            target.rmdir()
        raise
    environment = snapshot.get("environment") or {}
    command, place = _build_command(environment, Path(str(recorded.get("root"))), target / "code")
    return Reproduction(
        folder=target,
        code=target / "code",
        commit=recorded["head"],
        source=source,
        patched=b"\ndiff --git " in patch,
        left_out=(*_iter_patch_notes(patch), *_iter_submodule_notes(target / "code")),
        command=tuple(command),
        place=place,
        variables=_select_variables(environment),
        redacted=tuple(_iter_redacted_names(load_configuration(connection, execution, assets), environment)),
        differing=tuple(_iter_environment_differences(connection, environment)),
        inputs=tuple(_download_inputs(connection, rid, assets, target / "inputs")) if include_inputs else (),
        records=tuple(_download_records(connection, assets, target / "records")),
    )


def _explain_missing_commit(snapshot: Mapping[str, Any]) -> str:
    kind = (snapshot.get("source") or {}).get("kind")
    if not snapshot:
        return "has no environment snapshot"
    if kind == "container":
        return f"ran in the container {snapshot['source'].get('url')}"
    return "ran in a repository without a commit" if snapshot.get("repository") else "ran outside of any git repository"


def _suggest_container_command(snapshot: Mapping[str, Any]) -> str:
    """What to do where there is no code to check out, but an image that it ran in."""
    source = snapshot.get("source") or {}
    if source.get("kind") != "container":
        return ""
    image, digest = str(source.get("url") or ""), str(source.get("checksum") or "")
    named = image if "@" in image or not digest.startswith("sha256:") else f"{image}@{digest}"
    words = shlex.join(str(each) for each in (snapshot.get("environment") or {}).get("argv") or [])
    return f" Run that image again: docker run {shlex.quote(named)}" + (f", in which {words!r} ran." if words else ".")


def _read_patch(connection: Connection, assets: list[Asset], folder: Path) -> bytes:
    with fetch_metadata_file(connection, assets, PATCH_FILE, local_path=folder / "records" / PATCH_FILE) as file:
        return file.read_bytes() if file else b""


def _iter_patch_notes(patch: bytes) -> Iterator[str]:
    """The notes at a patch's head, which name what is not in it."""
    for line in patch.split(b"\n\n", 1)[0].decode(errors="replace").splitlines()[1:]:
        yield line.removeprefix("# ")


def _iter_submodule_notes(code: Path) -> Iterator[str]:
    if (code / ".gitmodules").is_file():
        yield "submodules: `git submodule update --init --recursive` brings them"


def _build_command(environment: Mapping[str, Any], root: Path, code: Path) -> tuple[list[str], Path]:
    """The command line with the repository's folder as it is here, and the folder that it runs in."""
    argv = [str(each) for each in environment.get("argv") or []]
    place = _relocate_path(str(environment.get("working_directory") or root), root, code)
    cwd = Path(place) if Path(place).is_dir() else code
    if not argv or argv[0] in ("", "-") or "ipykernel" in argv[0]:
        return [], cwd.absolute()
    python = _find_interpreter_arguments([str(each) for each in environment.get("orig_argv") or []], argv)
    program, *words = [_relocate_path(each, root, code) for each in argv]
    if python is not None:
        return [sys.executable, *(_relocate_path(each, root, code) for each in python), *words], cwd.absolute()
    if program.endswith(".py"):
        return [sys.executable, program, *words], cwd.absolute()
    return ([] if program in ("-c", "-m") else [_find_program(program), *words]), cwd.absolute()


def _find_interpreter_arguments(orig_argv: list[str], argv: list[str]) -> list[str] | None:
    """What Python itself was given before the program's own words; None where that is not known.

    Args:
        orig_argv: The command line as the process got it: of one that another began, perhaps that one's own.
        argv: The program and its words, as Python tells them.
    """
    before = orig_argv[1 : len(orig_argv) - len(argv) + 1]
    if not before or orig_argv[len(orig_argv) - len(argv) + 1 :] != argv[1:]:
        return None
    if before[-2:-1] in (["-m"], ["-c"]):
        return before
    return before if before[-1] == argv[0] and argv[0].endswith(".py") else None


def _find_program(recorded: str) -> str:
    """A command of this environment that has the name of the one that ran; the one that ran where there is none."""
    name = Path(recorded).name
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else which(name) or recorded


def _relocate_path(text: str, root: Path, code: Path) -> str:
    return str(code.absolute() / Path(text).relative_to(root)) if Path(text).is_relative_to(root) else text


def _select_variables(environment: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in (environment.get("variables") or {}).items()
        if COMPUTE_VARIABLES.fullmatch(name) and os.environ.get(name) != value
        if REDACTED_PREFIX not in str(value) and not str(value).startswith("/")  # a folder of that machine
    }


def _iter_redacted_names(configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    python = _find_interpreter_arguments(environment.get("orig_argv") or [], environment.get("argv") or [])
    parts = {
        "argument": environment.get("argv"),
        "code": python,
        "variable": environment.get("variables"),
        "setting": configuration,
    }
    for what, part in parts.items():
        for name, value in _flatten(part, ""):
            if REDACTED_PREFIX in str(value):
                yield f"{what} {name}"


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _flatten(part, f"{prefix}[{place}]" if prefix else str(place))
    else:
        yield prefix, value


def _iter_environment_differences(connection: Connection, environment: Mapping[str, Any]) -> Iterator[Difference]:
    from deriva_ml_core.plugins.manager import collect
    from deriva_ml_core.redaction import redact

    told = collect(connection.plugins, "describe_environment", {"environ": dict(os.environ)})
    present = redact(dict(told.get("environment") or {}))
    for each in find_differences(
        environment_sections(environment), environment_sections(present if isinstance(present, dict) else {})
    ):
        if each.name not in MACHINE_SPECIFIC_NAMES and not each.name.startswith("$"):
            yield each


def _download_inputs(connection: Connection, rid: str, assets: list[Asset], folder: Path) -> Iterator[Path]:
    for spec in lookup_execution(connection, rid).list_input_datasets():
        yield lookup_dataset(connection, spec.rid).download_dataset_bag(spec.version).path
    for asset in assets:
        if asset.role == Role.input:
            yield download_asset(connection, asset, folder)


def _download_records(connection: Connection, assets: list[Asset], folder: Path) -> Iterator[Path]:
    for asset in assets:
        if asset.table == MLAsset.execution_metadata and asset.role == Role.output:
            target = folder / safe_file_name(asset)
            download_asset(connection, asset, folder).replace(target)
            yield target
    for left in (folder / MLAsset.execution_metadata).glob("*"):
        left.rmdir()
    if (folder / MLAsset.execution_metadata).is_dir():
        (folder / MLAsset.execution_metadata).rmdir()
