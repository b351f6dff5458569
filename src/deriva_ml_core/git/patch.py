"""Uncommitted changes of a repository as one patch, from which a run can be rebuilt at HEAD."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from deriva_ml_core._text import format_size
from deriva_ml_core.git.checksum import is_notebook, strip_notebook
from deriva_ml_core.git.command import GitResult, run_git
from deriva_ml_core.redaction import has_secret, is_secret_file
from deriva_ml_core.user_warnings import warn, warn_not_reproducible

__all__ = ["uncommitted_patch"]

MAX_FILE_SIZE = 2**20
"""Maximum bytes of an untracked file in the patch."""

MAX_TOTAL_SIZE = 10 * 2**20
"""Maximum bytes of all untracked files in the patch."""

_MAX_NOTES = 1000
_DIFF_COMMAND = (
    "diff",
    "--cached",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-renames",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "-U3",
)


class _Change(NamedTuple):
    """A path that differs from HEAD.

    Args:
        path: The path in the work tree.
        is_tracked: Whether git tracks it.
        is_dirty_submodule: Whether it is a submodule with its own uncommitted changes.
    """

    path: str
    is_tracked: bool
    is_dirty_submodule: bool = False


class _GitFailed(Exception):
    """A git command for the patch failed."""


def uncommitted_patch(root: Path, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the difference between a repository's work tree and its HEAD as a patch.

    The patch holds the output of ``git diff --binary HEAD``, and untracked text files of up to 1 MiB each and 10 MiB
    in total. Its header names what is left out. Notebooks are without outputs. A file whose change holds a secret is
    left out.

    Args:
        root: The work tree.
        environ: The environment variables, those of the process by default. ``DERIVA_ML_REQUIRE_CLEAN=1`` makes it an
            error to leave out a file.

    Returns:
        A patch that ``git apply`` applies to HEAD, or to an empty folder if there is no commit. Empty if nothing
        differs, or if git fails, which causes a warning.

    Raises:
        NotReproducible: A file was left out, and ``DERIVA_ML_REQUIRE_CLEAN=1`` is set.
    """
    try:
        changes = list(_iter_changes(root))
        if not changes:
            return b""
        with TemporaryDirectory(prefix="deriva-ml-") as folder:
            return _build_patch(root, changes, Path(folder), os.environ if environ is None else environ)
    except (_GitFailed, OSError) as error:
        warn(
            f"Cannot record the uncommitted changes of {root} with the execution: {error}. Commit them before running."
        )
        return b""


def _require_success(result: GitResult) -> GitResult:
    if not result.ok:
        raise _GitFailed((result.stderr.splitlines() or [f"git exited with status {result.exit_status}"])[-1])
    return result


def _iter_changes(root: Path) -> Iterator[_Change]:
    arguments = ("--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=untracked")
    for record in _require_success(run_git(root, "status", *arguments)).records:
        if record.startswith("? "):
            yield _Change(record[2:], is_tracked=False)
        else:
            submodule = record.split(" ", 3)[2]
            path = record.split(" ", 10 if record.startswith("u ") else 8)[-1]
            yield _Change(path, is_tracked=True, is_dirty_submodule=submodule.startswith("S") and "M" in submodule)


def _build_patch(root: Path, changes: Sequence[_Change], folder: Path, environ: Mapping[str, str]) -> bytes:
    untracked, untracked_notes = _select_untracked(root, [change.path for change in changes if not change.is_tracked])
    parts = _diff_by_path(root, [*(change.path for change in changes if change.is_tracked), *untracked], folder)
    secret = sorted(name for name, part in parts.items() if _has_secret(root, name, part))
    for name in secret:
        warn_not_reproducible(
            f"The uncommitted change of {root / name} seems to hold a secret, so it is not recorded with the "
            "execution. Remove the secret from the file, or add the file to .gitignore.",
            environ,
        )
    notes = [
        *(f"left out, as its change holds a secret: {json.dumps(name)}" for name in secret),
        *(
            f"a submodule with its own uncommitted changes: {json.dumps(c.path)}"
            for c in changes
            if c.is_dirty_submodule
        ),
        *untracked_notes,
    ]
    return _format_header(root, notes) + b"".join(part for name, part in parts.items() if name not in secret)


def _diff_by_path(root: Path, paths: Sequence[str], folder: Path) -> dict[str, bytes]:
    """Return the patch of each path; git computes them with a temporary index, not the repository's own."""
    scratch = _create_scratch_index(root, folder)
    notebooks = {path for path in paths if is_notebook(path) and (root / path).is_file()}
    names = "".join(f"{path}\0" for path in paths if path not in notebooks).encode(errors="surrogateescape")
    _require_success(
        run_git(
            root, "update-index", "--add", "--remove", "--replace", "-z", "--stdin", input_bytes=names, environ=scratch
        )
    )
    for path in notebooks:
        _add_notebook_to_index(root, path, scratch)
    changed = _require_success(run_git(root, *_DIFF_COMMAND, "--name-only", "-z", environ=scratch)).records
    patch = _require_success(run_git(root, *_DIFF_COMMAND, "--binary", environ=scratch)).stdout
    return dict(zip(changed, re.split(rb"(?m)^(?=diff --git )", patch)[1:], strict=True))


def _format_header(root: Path, notes: list[str]) -> bytes:
    head = run_git(root, "rev-parse", "--verify", "--quiet", "HEAD").lines
    lines = [
        f"Uncommitted changes of {root.name} on {head[0] if head else 'no commit'}; apply with: git apply <this file>"
    ]
    lines += notes[:_MAX_NOTES]
    lines += [f"and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else []
    return "".join(f"# {line}\n" for line in lines).encode(errors="backslashreplace") + b"\n"


def _select_untracked(root: Path, untracked: Iterable[str]) -> tuple[list[str], list[str]]:
    included, notes, total = [], [], 0
    for path in untracked:
        size, reason = _check_untracked_file(root / path)
        if not reason and total + size > MAX_TOTAL_SIZE:
            reason = f"untracked files together over {format_size(MAX_TOTAL_SIZE)}"
        if reason:
            notes.append(f"untracked and left out ({reason}): {json.dumps(path)}")
        else:
            included.append(path)
            total += size
    return included, notes


def _check_untracked_file(file: Path) -> tuple[int, str]:
    try:
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            return status.st_size, ""
        if not stat.S_ISREG(status.st_mode):
            return 0, "a nested repository"
        if status.st_size > MAX_FILE_SIZE and not is_notebook(file):
            return 0, format_size(status.st_size)
        content = file.read_bytes()
    except OSError as error:
        return 0, str(error)
    if is_notebook(file):
        content = strip_notebook(content, file.parent)
    if len(content) > MAX_FILE_SIZE:
        return 0, format_size(len(content))
    # git also decides by the first 8,000 bytes whether a file is text
    return len(content), f"binary, {format_size(len(content))}" if b"\0" in content[:8000] else ""


def _create_scratch_index(root: Path, folder: Path) -> dict[str, str]:
    """Create a temporary index and object folder, so that nothing is written into the repository."""
    index, objects = _require_success(run_git(root, "rev-parse", "--git-path", "index", "--git-path", "objects")).lines
    if (root / index).is_file():
        # with its modification time, by which git detects files that changed just after the index was written
        shutil.copy2(root / index, folder / "index")
    (folder / "objects").mkdir()
    quoted = str(root / objects).replace("\\", "\\\\").replace('"', '\\"')
    return {
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
    }


def _add_notebook_to_index(root: Path, path: str, environ: Mapping[str, str]) -> None:
    file = root / path
    content = strip_notebook(file.read_bytes(), file.parent)
    committed = run_git(root, "cat-file", "blob", f"HEAD:{path}")
    if committed.ok and strip_notebook(committed.stdout, file.parent) == content:
        content = committed.stdout
    written = _require_success(
        run_git(root, "hash-object", "-w", "--stdin", "--no-filters", input_bytes=content, environ=environ)
    )
    mode = "100755" if file.stat().st_mode & stat.S_IXUSR else "100644"
    entry = f"{mode},{written.lines[0]},{path}"
    _require_success(run_git(root, "update-index", "--add", "--replace", "--cacheinfo", entry, environ=environ))


def _has_secret(root: Path, name: str, diff: bytes) -> bool:
    return is_secret_file(name) or any(has_secret(text, name) for text in _iter_texts(root / name, diff))


def _iter_texts(file: Path, diff: bytes) -> Iterator[str]:
    yield diff.decode(errors="replace")
    if b"\nGIT binary patch\n" in diff and file.is_file():
        yield file.read_bytes().decode("latin-1")
