"""Reproduction of a run in a folder: its code, inputs, metadata files, and the command that ran it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from deriva_ml_core._views import Grid, Presentable, View
from deriva_ml_core.analysis.compare import Difference, environment_sections, find_differences
from deriva_ml_core.analysis.run_files import (
    PATCH_FILE,
    fetch_metadata_file,
    load_configuration,
    load_environment,
    safe_file_name,
)
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.definitions import MLAsset, Role
from deriva_ml_core.errors import FileConflict, NotReproducible
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.git import checkout_commit
from deriva_ml_core.models import Asset
from deriva_ml_core.paths import find_current_folder, require_current_folder
from deriva_ml_core.plugins.manager import collect
from deriva_ml_core.redaction import redact

__all__ = ["Reproduction", "reproduce_execution"]

COMPUTE_VARIABLES = re.compile(
    r"(?:CUBLAS|CUDNN|HF|HIP|JAX|KERAS|MKL|NCCL|NUMEXPR|OMP|OPENBLAS|PYTORCH|TF|TORCH|TORCHINDUCTOR|XLA)_.*|PYTHONHASHSEED"
)
"""The environment variables that change what a run computes on any machine."""

REDACTED_PREFIX = "[redacted:"
MACHINE_SPECIFIC_NAMES = ("command", "hostname", "user", "working directory", "python's folder")


@dataclass(frozen=True, slots=True)
class Reproduction(Presentable):
    """A run that is rebuilt in a folder and can be run again.

    Args:
        rid: The RID of the execution.
        folder: The folder that holds everything.
        code_dir: The work tree in it.
        commit: The commit that is checked out there.
        source: The repository or the URL that the commit came from.
        is_patched: Whether uncommitted changes were applied.
        missing_changes: What the work tree lacks: uncommitted changes that were not recorded, submodules, and files
            whose filter was not run.
        command: The command line, for this machine; empty if none is recorded.
        run_dir: The folder to run it in.
        variables: The environment variables of the run that this process does not have.
        redacted: The names of secret values, which were not recorded.
        environment_differences: What differs between the recorded environment (left) and this one (right).
        inputs: The input files, and the folders of the dataset bags.
        records: The metadata files of the run.
        exit_code: The exit code of the command, if it was run at once.
    """

    rid: str
    folder: Path
    code_dir: Path
    commit: str
    source: str
    is_patched: bool
    missing_changes: tuple[str, ...]
    command: tuple[str, ...]
    run_dir: Path
    variables: Mapping[str, str]
    redacted: tuple[str, ...]
    environment_differences: tuple[Difference, ...]
    inputs: tuple[Path, ...]
    records: tuple[Path, ...]
    exit_code: int | None = None

    @property
    def shell_command(self) -> str:
        """The command with its folder and variables, for a shell; empty if none is recorded."""
        if not self.command:
            return ""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return f"cd {shlex.quote(str(self.run_dir))} && {' '.join([*variables, shlex.join(self.command)])}"

    def run(self) -> int:
        """Run the command in its folder, with its variables, and wait for it.

        The command writes to this process's standard output and standard error.

        Returns:
            The exit code of the command.

        Raises:
            NotReproducible: No command is recorded, or a secret in it was not.
        """
        if not self.command:
            raise NotReproducible(f"No command is recorded for execution {self.rid}, so it cannot be run.")
        if secrets := [name for name in self.redacted if name.startswith(("argument", "code"))]:
            raise NotReproducible(
                f"The command contained a secret in {', '.join(secrets)}: run it by hand with the secret."
            )
        environ = {**os.environ, **self.variables}
        return subprocess.run(self.command, cwd=self.run_dir, env=environ, check=False).returncode  # noqa: S603

    def to_dict(self) -> dict[str, Any]:
        """Return the reproduction as ``deriva-ml reproduce --json`` prints it."""
        return {
            "rid": self.rid,
            "folder": self.folder,
            "code": self.code_dir,
            "commit": self.commit,
            "source": self.source,
            "patched": self.is_patched,
            "left_out": list(self.missing_changes),
            "command": list(self.command),
            "place": self.run_dir,
            "variables": dict(self.variables),
            "redacted": list(self.redacted),
            "inputs": list(self.inputs),
            "records": list(self.records),
            "line": self.shell_command,
            "differing": [difference.to_dict() for difference in self.environment_differences],
            "exit_code": self.exit_code,
        }

    def _view(self) -> View:
        fields = [
            ("folder", str(self.folder)),
            ("code", f"{self.commit[:12]} of {self.source}"),
            ("uncommitted", "applied" if self.is_patched else "nothing"),
            ("not recorded", "; ".join(self.missing_changes)),
            ("inputs", "; ".join(map(str, self.inputs))),
            ("secrets", ", ".join(self.redacted)),
            ("exit code", None if self.exit_code is None else str(self.exit_code)),
            ("command", self.shell_command or "not recorded"),
        ]
        differences = [
            (each.name, *("-" if value is None else str(value) for value in each.values))
            for each in self.environment_differences
        ]
        grids = [Grid([field for field in fields if field[1]])]
        if differences:
            grids.append(Grid(differences, ("", "Recorded", "Here"), title="Environment"))
        return View(f"Reproduction of execution {self.rid}", grids)


def reproduce_execution(
    connection: Connection, rid: str, folder: Path, repository: Path | None, *, download_inputs: bool
) -> Reproduction:
    """Rebuild a run in a folder; see ``DerivaML.reproduce``."""
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    recorded_repository = snapshot.get("repository") or {}
    if not recorded_repository.get("head"):
        raise NotReproducible(
            f"Execution {rid} {_explain_missing_commit(snapshot)}, so its code cannot be checked "
            f"out.{_suggest_container_command(snapshot)}"
        )
    require_current_folder(folder)
    if folder.exists():
        raise FileConflict(f"{folder} already exists; choose another folder (--into).")
    folder.mkdir(parents=True)
    patch = _read_patch(connection, execution, assets)
    root = Path(str(recorded_repository.get("root")))  # only to recognise paths below it, never opened
    commit, remote = str(recorded_repository["head"]), recorded_repository.get("remote")
    try:
        checkout = checkout_commit(
            commit,
            folder / "code",
            patch=patch,
            repositories=[each for each in (repository, find_current_folder()) if each is not None],
            remote=None if remote is None else str(remote),
        )
    except NotReproducible:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    environment = snapshot.get("environment") or {}
    command, run_dir = _build_command(environment, root, folder / "code")
    return Reproduction(
        rid=rid,
        folder=folder,
        code_dir=folder / "code",
        commit=commit,
        source=checkout.source,
        is_patched=b"\ndiff --git " in patch,
        missing_changes=(
            *_iter_patch_notes(patch),
            *_iter_submodule_notes(folder / "code"),
            *map(_format_filter_note, checkout.skipped_filters),
        ),
        command=tuple(command),
        run_dir=run_dir,
        variables=_select_variables(environment),
        redacted=tuple(_iter_redacted_names(load_configuration(connection, execution, assets), environment)),
        environment_differences=tuple(_iter_environment_differences(connection, environment)),
        inputs=tuple(_download_inputs(connection, rid, assets, folder / "inputs")) if download_inputs else (),
        records=tuple(_download_records(connection, assets, folder / "records")),
    )


def _explain_missing_commit(snapshot: Mapping[str, Any]) -> str:
    kind = (snapshot.get("source") or {}).get("kind")
    if not snapshot:
        return "has no environment snapshot"
    if kind == "container":
        return f"ran in the container {snapshot['source'].get('url')}"
    if kind == "distribution":
        return f"ran an installed program, {snapshot['source'].get('url')}"
    return "ran in a repository without a commit" if snapshot.get("repository") else "ran outside of any git repository"


def _suggest_container_command(snapshot: Mapping[str, Any]) -> str:
    """Return the command that runs the image again if the run was in a container, else an empty text."""
    source = snapshot.get("source") or {}
    if source.get("kind") != "container":
        return ""
    image, digest = str(source.get("url") or ""), str(source.get("checksum") or "")
    reference = image if "@" in image or not digest.startswith("sha256:") else f"{image}@{digest}"
    command = shlex.join(str(each) for each in (snapshot.get("environment") or {}).get("argv") or [])
    return f" Run that image again: docker run {shlex.quote(reference)}" + (
        f" (its command was {command!r})." if command else "."
    )


def _read_patch(connection: Connection, execution: RecordedExecution, assets: list[Asset]) -> bytes:
    local_path = execution.working_dir / "records" / PATCH_FILE
    with fetch_metadata_file(connection, execution, assets, PATCH_FILE, local_path=local_path) as file:
        return file.read_bytes() if file else b""


def _iter_patch_notes(patch: bytes) -> Iterator[str]:
    """Yield the notes at the head of a patch, which name what it lacks."""
    for line in patch.split(b"\n\n", 1)[0].decode(errors="replace").splitlines()[1:]:
        yield line.removeprefix("# ")


def _iter_submodule_notes(code: Path) -> Iterator[str]:
    if (code / ".gitmodules").is_file():
        yield "submodules: run `git submodule update --init --recursive`"


def _format_filter_note(name: str) -> str:
    hint = "run `git lfs pull`" if name == "lfs" else "check them out again if you trust the repository"
    return f"the filter {name} was not run on its files: {hint}"


def _build_command(environment: Mapping[str, Any], root: Path, code: Path) -> tuple[list[str], Path]:
    """Return the command line with the paths of this machine, and the folder to run it in."""
    argv = [str(each) for each in environment.get("argv") or []]
    working_directory = _relocate_path(str(environment.get("working_directory") or root), root, code)
    cwd = Path(working_directory) if Path(working_directory).is_dir() else code
    if not argv or argv[0] in ("", "-") or "ipykernel" in argv[0]:
        return [], cwd.absolute()
    python = _find_interpreter_arguments([str(each) for each in environment.get("orig_argv") or []], argv)
    program, *arguments = [_relocate_path(each, root, code) for each in argv]
    if python is not None:
        return [sys.executable, *(_relocate_path(each, root, code) for each in python), *arguments], cwd.absolute()
    if program.endswith(".py"):
        return [sys.executable, program, *arguments], cwd.absolute()
    return ([] if program in ("-c", "-m") else [_find_program(program), *arguments]), cwd.absolute()


def _find_interpreter_arguments(orig_argv: list[str], argv: list[str]) -> list[str] | None:
    """Return the arguments of Python itself, which precede those of the program; None if they are unknown.

    Args:
        orig_argv: The command line of the process, `sys.orig_argv`. In a child process of `multiprocessing` it is the
            child's own.
        argv: The program and its arguments, `sys.argv`.
    """
    before = orig_argv[1 : len(orig_argv) - len(argv) + 1]
    if not before or orig_argv[len(orig_argv) - len(argv) + 1 :] != argv[1:]:
        return None
    if before[-2:-1] in (["-m"], ["-c"]):
        return before
    return before if before[-1] == argv[0] and argv[0].endswith(".py") else None


def _find_program(recorded: str) -> str:
    """Return the command of the same name in this environment, or the recorded path if there is none."""
    name = Path(recorded).name
    local = Path(sys.executable).parent / name
    return str(local) if local.is_file() else which(name) or recorded


def _relocate_path(text: str, root: Path, code: Path) -> str:
    return str(code.absolute() / Path(text).relative_to(root)) if Path(text).is_relative_to(root) else text


def _select_variables(environment: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in (environment.get("variables") or {}).items()
        if COMPUTE_VARIABLES.fullmatch(name) and os.environ.get(name) != value
        if REDACTED_PREFIX not in str(value) and not str(value).startswith("/")  # a folder of the recorded machine
    }


def _iter_redacted_names(configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    python = _find_interpreter_arguments(environment.get("orig_argv") or [], environment.get("argv") or [])
    parts = {
        "argument": environment.get("argv"),
        "code": python,
        "variable": environment.get("variables"),
        "setting": configuration,
    }
    for kind, part in parts.items():
        for name, value in _flatten(part, ""):
            if REDACTED_PREFIX in str(value):
                yield f"{kind} {name}"


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _flatten(part, f"{prefix}[{index}]" if prefix else str(index))
    else:
        yield prefix, value


def _iter_environment_differences(connection: Connection, environment: Mapping[str, Any]) -> Iterator[Difference]:
    described = collect(connection.plugins, "describe_environment", {"environ": dict(os.environ)})
    present = redact(dict(described.get("environment") or {}))
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
    download_folder = folder / MLAsset.execution_metadata  # which download_asset creates
    for empty_folder in download_folder.glob("*"):
        empty_folder.rmdir()
    if download_folder.is_dir():
        download_folder.rmdir()
