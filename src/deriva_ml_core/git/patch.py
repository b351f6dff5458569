"""Uncommitted changes of a repository as one patch, from which a run can be rebuilt at HEAD."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._text import format_count, format_size
from deriva_ml_core.git.checksum import is_notebook, strip_notebook
from deriva_ml_core.git.command import GitResult, query_status, run_git
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.redaction import has_secret, is_secret_file
from deriva_ml_core.user_warnings import warn, warn_not_reproducible

__all__ = ["uncommitted_patch"]

MAX_FILE_SIZE = 2**20
"""Maximum bytes of an untracked file in the patch."""

MAX_TOTAL_SIZE = 10 * 2**20
"""Maximum bytes of all untracked files in the patch."""

MAX_BINARY_SIZE = 10 * 2**20
"""Maximum bytes of all tracked binary files whose changes are in the patch."""

MAX_TEXT_SIZE = 10 * 2**20
"""Maximum bytes of the changes of tracked text files in the patch."""

MAX_COMPARED_SIZE = 32 * 2**20
"""Maximum bytes of all tracked files that git compares with HEAD."""

MAX_NOTEBOOK_SIZE = 64 * 2**20
"""Maximum bytes of all tracked, and of all untracked notebooks, with their outputs."""

MAX_EXAMINED_SIZE = 64 * 2**20
"""Maximum bytes that are read of untracked files to distinguish texts from data."""

# git decides by as many bytes whether a file is text
_TEXT_SAMPLE_SIZE = 8000
_MAX_NOTES = 1000
_MAX_ATTEMPTS = 200
_MAX_PATHS_IN_COMMAND = 500
# a run of characters that may be a text in a binary file; shorter ones are common in random bytes
_READABLE = re.compile(rb"[\t -~]{12,}")
_BINARY_PART = re.compile(rb"(?m)^Binary files .* differ$")
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
)


# files that mark a folder as a project
_PROJECT_FILES = (
    *(".dvc", ".project-root", "MLproject", "Makefile", "Pipfile", "conda.yaml", "conda.yml", "dvc.yaml"),
    *("environment.yaml", "environment.yml", "pixi.toml", "poetry.lock", "pyproject.toml", "requirements.txt"),
    *("setup.cfg", "setup.py", "tox.ini", "uv.lock"),
)
# hidden folders that belong to a project, not to a tool of one user
_PROJECT_FOLDERS = frozenset({".binder", ".buildkite", ".circleci", ".devcontainer", ".dvc", ".github", ".gitlab"})


class _Change(NamedTuple):
    """A path that differs from HEAD.

    Args:
        path: The path in the work tree.
        is_tracked: Whether git tracks it.
        head_blob: Its hash in HEAD; zeros if HEAD does not contain it.
        is_submodule: Whether it is a submodule.
        is_dirty_submodule: Whether it is a submodule with its own uncommitted changes.
    """

    path: str
    is_tracked: bool
    head_blob: str = ""
    is_submodule: bool = False
    is_dirty_submodule: bool = False


class _DiffEntry(NamedTuple):
    """A path that differs between HEAD and the scratch index.

    Args:
        path: The path in the work tree.
        old_blob: Its hash in HEAD; zeros if it is new.
        new_blob: Its hash in the index; zeros if it is removed.
        is_retyped: Whether its type changed, as from a file to a link. Git writes two parts for it.
    """

    path: str
    old_blob: str
    new_blob: str
    is_retyped: bool


class _GitFailed(Exception):
    """A git command for the patch failed."""


def uncommitted_patch(
    root: Path,
    environ: Mapping[str, str] | None = None,
    *,
    excluded: Iterable[Path] = (),
    script: Path | None = None,
    fallback_folder: Path | None = None,
) -> bytes:
    """Return the difference between a repository's work tree and its HEAD as a patch.

    The patch holds the output of ``git diff --binary HEAD``, and untracked text files of up to 1 MiB each and 10 MiB
    in total. Changes of tracked binary files, and of tracked text files, are limited to 10 MiB in total as well; the
    smallest come first. Its header names what is left out, a tracked file with its hash. Notebooks are without outputs.
    A file is left out if its change holds a secret or git cannot read it.

    Untracked files in the folders of tools, such as ``.cache``, are left out. If the work tree is the user's home
    folder or contains it, untracked files are included only below the script's project: the nearest folder above the
    script, and below the home folder, with a file such as ``pyproject.toml``. If there is none, only Python files below
    the script's folder are, or next to a script in the home folder itself.

    Args:
        root: The work tree.
        environ: The environment variables, those of the process by default. ``DERIVA_ML_REQUIRE_CLEAN=1`` makes it an
            error to leave out a file.
        excluded: Files and folders that are never part of the patch.
        script: The file that runs; by default, an unknown file in the working directory.
        fallback_folder: Folder for temporary files if the system has none; the work tree by default.

    Returns:
        A patch that ``git apply`` applies to HEAD, or to an empty folder if there is no commit. Empty if nothing
        differs, or if git fails, which causes a warning.

    Raises:
        NotReproducible: A tracked file, a file with a secret, or a file that git cannot read was left out, and
            ``DERIVA_ML_REQUIRE_CLEAN=1`` is set.
    """
    try:
        scope = _find_scope(root, script)
        changes = list(_iter_changes(root, excluded, scope))
        if not changes:
            return b""
        with scratch_folder(fallback_folder or root) as folder:
            return _build_patch(root, changes, folder, os.environ if environ is None else environ, scope)
    except (_GitFailed, OSError) as error:
        warn(
            f"Cannot record the uncommitted changes of {root} with the execution: {error}. Commit them before running."
        )
        return b""


def _require_success(result: GitResult) -> GitResult:
    if not result.ok:
        message = (result.stderr.strip().splitlines() or [f"git exited with status {result.exit_status}"])[-1]
        raise _GitFailed(message.removeprefix("fatal: "))
    return result


def _iter_changes(root: Path, excluded: Iterable[Path], scope: _Scope) -> Iterator[_Change]:
    untracked = "no" if scope.is_limited else "all"
    status = query_status(root, f"--untracked-files={untracked}", "--ignore-submodules=untracked", excluded=excluded)
    records = _require_success(status).records
    if scope.is_limited and scope.paths:
        found = query_status(root, "--untracked-files=all", excluded=excluded, only=scope.paths)
        records += [record for record in _require_success(found).records if record.startswith("? ")]
    for record in records:
        if record.startswith("? "):
            if not scope.is_python_only or record.endswith(".py"):
                yield _Change(record[2:], is_tracked=False)
            continue
        # a conflict has the hashes of three versions, of which the second is that of HEAD
        is_conflict = record.startswith("u ")
        _, _, submodule, *parts = record.split(" ", 10 if is_conflict else 8)
        yield _Change(
            parts[-1],
            is_tracked=True,
            head_blob=parts[5] if is_conflict else parts[3],
            is_submodule=submodule.startswith("S"),
            is_dirty_submodule=submodule.startswith("S") and "M" in submodule,
        )


def _build_patch(
    root: Path, changes: Sequence[_Change], folder: Path, environ: Mapping[str, str], scope: _Scope
) -> bytes:
    head = next(iter(run_git(root, "rev-parse", "--verify", "--quiet", "HEAD").lines), None)
    index = _ScratchIndex(root, folder, head)
    tracked = {change.path: change for change in changes if change.is_tracked}
    places, place_notes = _select_places([change.path for change in changes if not change.is_tracked])
    untracked, untracked_notes = _select_untracked(root, places)
    compared, too_large = _select_compared(root, list(tracked.values()))
    failed = index.add([*compared, *untracked])
    diff = _diff_by_path(index, tracked.keys())
    failed |= diff.failed
    too_large |= diff.too_large
    secret = sorted(name for name, part in diff.parts.items() if _has_secret(root, name, part))
    _warn_of_missing(root, secret, failed, too_large, environ)
    notes = [
        *(f"left out, as its change holds a secret: {json.dumps(name)}" for name in secret),
        *(f"left out, as git cannot take it ({failed[name]}): {json.dumps(name)}" for name in sorted(failed)),
        *(f"left out ({too_large[name]}): {json.dumps(name)}" for name in sorted(too_large)),
        *(
            f"a submodule with its own uncommitted changes: {json.dumps(c.path)}"
            for c in changes
            if c.is_dirty_submodule
        ),
        *scope.notes(root),
        *place_notes,
        *untracked_notes,
    ]
    return _format_header(root, head, notes) + b"".join(part for name, part in diff.parts.items() if name not in secret)


def _warn_of_missing(
    root: Path,
    secret: Iterable[str],
    failed: Mapping[str, str],
    too_large: Mapping[str, str],
    environ: Mapping[str, str],
) -> None:
    for name in secret:
        warn_not_reproducible(
            f"The uncommitted change of {root / name} seems to hold a secret, so it is not recorded with the "
            "execution. Remove the secret from the file, or add the file to .gitignore.",
            environ,
        )
    if failed:
        name = min(failed)
        others = f" and of {format_count(len(failed) - 1, 'other file')}" if len(failed) > 1 else ""
        warn_not_reproducible(
            f"Cannot record the uncommitted changes of {root / name}{others} with the execution: {failed[name]}. "
            "Commit them before running.",
            environ,
        )
    if too_large:
        name = min(too_large)
        others = f" and of {format_count(len(too_large) - 1, 'other file')}" if len(too_large) > 1 else ""
        warn_not_reproducible(
            f"The uncommitted changes of {root / name}{others} are too large to be recorded with the execution "
            f"({too_large[name]}), so only names and hashes are. Commit them before running.",
            environ,
        )


# selection by place


class _Scope(NamedTuple):
    """Where untracked files belong to the project.

    Args:
        paths: Folders, or files, below which they are; with `is_limited`, none means nowhere.
        is_limited: Whether they are not taken from the whole work tree.
        is_python_only: Whether only Python files are taken.
    """

    paths: tuple[Path, ...] = ()
    is_limited: bool = False
    is_python_only: bool = False

    def notes(self, root: Path) -> list[str]:
        """Return the line of the header that says which untracked files are looked at, if not all are."""
        if not self.is_limited:
            return []
        text = "untracked files outside of the project are not part of the patch"
        folders = [f"{path.relative_to(root).as_posix()}/" for path in self.paths if path.is_dir()]
        return [f"{text}: only {json.dumps(folders[0])} is" if folders and not self.is_python_only else text]


def _find_scope(root: Path, script: Path | None) -> _Scope:
    """Find the project in a home folder that is a repository; elsewhere, the project is the whole work tree."""
    root, home = root.resolve(), Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - raises nothing without a home
    if not home.is_relative_to(root):
        return _Scope()
    folder = script.parent.resolve() if script else find_current_folder()
    if folder is None or not folder.is_relative_to(root):
        return _Scope(is_limited=True)
    for parent in (folder, *folder.parents):
        if parent in (home, root) or home.is_relative_to(parent):
            break
        if any((parent / name).exists() for name in _PROJECT_FILES):
            return _Scope((parent,), is_limited=True)
    if script is None:
        return _Scope(is_limited=True)
    if home.is_relative_to(folder):
        return _Scope(tuple(sorted(folder.glob("*.py"))), is_limited=True, is_python_only=True)
    return _Scope((folder,), is_limited=True, is_python_only=True)


def _select_places(untracked: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the paths that are in no folder of a tool, and notes on those that are."""
    included, counts = [], dict[str, int]()
    for path in untracked:
        folders = path.split("/")[:-1]
        hidden = (
            depth for depth, name in enumerate(folders, 1) if name.startswith(".") and name not in _PROJECT_FOLDERS
        )
        if (depth := next(hidden, 0)) == 0:
            included.append(path)
        else:
            folder = "/".join(folders[:depth]) + "/"
            counts[folder] = counts.get(folder, 0) + 1
    notes = [
        f"untracked and left out ({format_count(count, 'file')} in the folder of a tool): {json.dumps(folder)}"
        for folder, count in sorted(counts.items())
    ]
    return included, notes


# selection by size


def _select_within(sizes: Mapping[str, int], limit: int) -> set[str]:
    """Return the smallest paths that have at most this size in total."""
    selected, total = set[str](), 0
    for path in sorted(sizes, key=lambda path: (sizes[path], path)):
        total += sizes[path]
        if total > limit:
            break
        selected.add(path)
    return selected


def _select_compared(root: Path, changes: Sequence[_Change]) -> tuple[list[str], dict[str, str]]:
    """Return the tracked paths that git compares with HEAD, and the size and hash of each other one by its path."""
    head_sizes = _query_sizes(root, (change.head_blob for change in changes if not change.is_submodule))
    sizes = {
        change.path: max(_file_size(root / change.path), head_sizes.get(change.head_blob, 0))
        for change in changes
        if not change.is_submodule
    }
    notebooks = {path: size for path, size in sizes.items() if is_notebook(path)}
    files = {path: size for path, size in sizes.items() if path not in notebooks}
    selected = _select_within(notebooks, MAX_NOTEBOOK_SIZE) | _select_within(files, MAX_COMPARED_SIZE)
    # git stores a file as its filter leaves it, which is often small, as by git-lfs
    selected |= _query_filters(root, [path for path in sizes if path not in selected]).keys()
    left_out = {path: _describe_file(root, path, size) for path, size in sizes.items() if path not in selected}
    return [change.path for change in changes if change.path not in left_out], left_out


def _file_size(file: Path) -> int:
    try:
        status = file.lstat()
    except OSError:  # it was removed
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _query_sizes(root: Path, blobs: Iterable[str], environ: Mapping[str, str] | None = None) -> dict[str, int]:
    """Return the size of each of these blobs that the repository has."""
    names = "".join(f"{blob}\n" for blob in {*blobs} if blob.strip("0")).encode()
    if not names:
        return {}
    command = ("cat-file", "--batch-check=%(objectname) %(objectsize)")
    lines = (line.partition(" ") for line in run_git(root, *command, input_bytes=names, environ=environ).lines)
    return {blob: int(size) for blob, _, size in lines if size.isdecimal()}


def _query_filters(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Return the filter by which git converts each of these paths that has one."""
    if not paths:
        return {}
    # records of three: file, attribute, value
    records = run_git(root, "check-attr", "-z", "--stdin", "filter", input_bytes=_join_paths(paths)).records
    values = zip(records[::3], records[2::3], strict=True)
    return {path: value for path, value in values if value not in ("unspecified", "unset", "set")}


def _describe_file(root: Path, path: str, size: int) -> str:
    result = run_git(root, "hash-object", "--", path)
    return f"{format_size(size)}, {f'blob {result.lines[0]}' if result.ok else 'removed'}"


def _select_untracked(root: Path, untracked: Iterable[str]) -> tuple[list[str], list[str]]:
    included, reasons, total = [], dict[str, str](), 0
    sizes = {path: _file_size(root / path) for path in untracked}
    examined = notebooks = 0
    for path in sorted(sizes, key=lambda path: (sizes[path], path)):
        if is_notebook(path):
            notebooks += sizes[path]
            size, reason = _check_untracked_file(root / path, is_readable=notebooks <= MAX_NOTEBOOK_SIZE)
        else:
            is_readable = total + sizes[path] <= MAX_TOTAL_SIZE and examined <= MAX_EXAMINED_SIZE
            examined += min(sizes[path], _TEXT_SAMPLE_SIZE)
            size, reason = _check_untracked_file(root / path, is_readable=is_readable)
        if not reason and total + size > MAX_TOTAL_SIZE:
            reason = f"untracked files together over {format_size(MAX_TOTAL_SIZE)}"
        if reason:
            reasons[path] = reason
        else:
            included.append(path)
            total += size
    return included, [f"untracked and left out ({reasons[path]}): {json.dumps(path)}" for path in sorted(reasons)]


def _check_untracked_file(file: Path, *, is_readable: bool) -> tuple[int, str]:
    """Return an untracked file's size in the patch, and why it is left out; empty if it is not.

    Args:
        file: The file.
        is_readable: Whether its content may be read.
    """
    try:
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            return status.st_size, ""
        if not stat.S_ISREG(status.st_mode):
            return 0, "a nested repository"
        if (status.st_size > MAX_FILE_SIZE and not is_notebook(file)) or (is_notebook(file) and not is_readable):
            return 0, format_size(status.st_size)
        if not is_readable:
            return 0, f"untracked files together over {format_size(MAX_TOTAL_SIZE)}"
        if not is_notebook(file):
            with file.open("rb") as stream:
                return _check_text(stream.read(_TEXT_SAMPLE_SIZE), status.st_size)
        content = strip_notebook(file.read_bytes(), file.parent)
    except OSError as error:
        return 0, str(error)
    return (0, format_size(len(content))) if len(content) > MAX_FILE_SIZE else _check_text(content, len(content))


def _check_text(content: bytes, size: int) -> tuple[int, str]:
    return size, f"binary, {format_size(size)}" if b"\0" in content[:_TEXT_SAMPLE_SIZE] else ""


# git


class _ScratchIndex:
    """A temporary index with the files of HEAD, and an object folder: nothing is written into the repository.

    Args:
        root: The work tree.
        folder: An empty folder for both.
        head: The commit that is checked out; None before the first commit.
    """

    def __init__(self, root: Path, folder: Path, head: str | None) -> None:
        (objects,) = _require_success(run_git(root, "rev-parse", "--git-path", "objects")).lines
        (folder / "objects").mkdir()
        quoted = str(root / objects).replace("\\", "\\\\").replace('"', '\\"')
        self.root = root
        self.environ = {
            "GIT_INDEX_FILE": str(folder / "index"),
            "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
        }
        self._output = folder / "diff"
        # the repository's own index can have staged versions, and files whose filters git would run to write it
        if head is not None:
            _require_success(run_git(root, "read-tree", head, environ=self.environ))

    def add(self, paths: Sequence[str]) -> dict[str, str]:
        """Update the index to the files of the work tree.

        Returns:
            Why git cannot take a file, by its path.
        """
        notebooks = {path for path in paths if is_notebook(path) and (self.root / path).is_file()}
        failed = _bisect(list(notebooks), self._add_notebook, chunk_size=1)
        files = [path for path in paths if path not in notebooks]
        try:
            self._add_files(files)
        except _GitFailed:
            # a filter that is not installed fails for all its files
            filters = _query_filters(self.root, files)
            for name in {None, *filters.values()}:
                failed |= _bisect([path for path in files if filters.get(path) == name], self._add_files)
        return failed

    def _add_files(self, paths: Sequence[str]) -> None:
        self._update("--add", "--remove", "--replace", "-z", "--stdin", input_bytes=_join_paths(paths))

    def _add_notebook(self, paths: Sequence[str]) -> None:
        (path,) = paths
        file = self.root / path
        try:
            content = strip_notebook(file.read_bytes(), file.parent)
            mode = "100755" if file.stat().st_mode & stat.S_IXUSR else "100644"
        except OSError as error:
            raise _GitFailed(str(error)) from error
        committed = run_git(self.root, "cat-file", "blob", f"HEAD:{path}")
        if committed.ok and strip_notebook(committed.stdout, file.parent) == content:
            content = committed.stdout
        command = ("hash-object", "-w", "--stdin", "--no-filters")
        written = _require_success(run_git(self.root, *command, input_bytes=content, environ=self.environ))
        self._update("--add", "--replace", "--cacheinfo", f"{mode},{written.lines[0]},{path}")

    def _update(self, *arguments: str, input_bytes: bytes = b"") -> None:
        # the objects exist only for a moment
        command = ("-c", "core.looseCompression=0", "update-index", *arguments)
        _require_success(run_git(self.root, *command, input_bytes=input_bytes, environ=self.environ))

    def list_differences(self, paths: Sequence[str] = ()) -> list[_DiffEntry]:
        """Return the differences of these paths, or of all, in the order of the parts of `write_diff`."""
        command = (*_DIFF_COMMAND, "--raw", "-z", "--no-abbrev", "--", *paths)
        records = _require_success(run_git(self.root, *command, environ=self.environ)).records
        fields = (record.split(" ") for record in records[::2])
        return [
            _DiffEntry(path, old_blob, new_blob, is_retyped=status == "T")
            for (_, _, old_blob, new_blob, status), path in zip(fields, records[1::2], strict=True)
        ]

    def write_diff(self, *options: str, paths: Sequence[str] = ()) -> Path:
        """Write the diff of these paths, or of all, to a file. The next call replaces it."""
        command = (*_DIFF_COMMAND, "-U3", *options, f"--output={self._output}", "--", *paths)
        _require_success(run_git(self.root, *command, environ=self.environ))
        return self._output


def _join_paths(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(f"{path}\0") for path in paths)


def _bisect(
    paths: Sequence[str], attempt: Callable[[Sequence[str]], object], *, chunk_size: int | None = None
) -> dict[str, str]:
    """Make an attempt with all paths. After a failure, make it with each half of them.

    Args:
        paths: The paths.
        attempt: The attempt. It raises `_GitFailed`.
        chunk_size: The maximum number of paths of an attempt; None for no maximum.

    Returns:
        The message of each path that fails alone. After many attempts, the paths that fail together are not divided.
    """
    size = chunk_size or max(len(paths), 1)
    waiting = [paths[start : start + size] for start in range(0, len(paths), size)]
    failed: dict[str, str] = {}
    attempts = 0
    while waiting:
        part = waiting.pop()
        try:
            attempt(part)
        except _GitFailed as error:
            attempts += 1
            if len(part) == 1 or attempts > _MAX_ATTEMPTS:
                failed |= dict.fromkeys(part, str(error))
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
    return failed


class _Diff(NamedTuple):
    """The parts of a patch.

    Args:
        parts: The patch of each path.
        failed: Why git fails for a path.
        too_large: Size and hash of each path that is left out because of its size.
    """

    parts: dict[str, bytes]
    failed: dict[str, str]
    too_large: dict[str, str]


def _diff_by_path(index: _ScratchIndex, tracked: Collection[str]) -> _Diff:
    """Return the patch of each path. The content of binary files is only compared if it fits into the patch.

    Args:
        index: The index, with the files of the work tree.
        tracked: The paths whose changes are limited in size; the others were limited before.
    """
    entries = {entry.path: entry for entry in index.list_differences()}
    texts, binary, failed = _diff_texts(index, list(entries.values()))
    blobs = (blob for path in binary for blob in (entries[path].old_blob, entries[path].new_blob))
    blob_sizes = _query_sizes(index.root, blobs, index.environ)
    sizes = {
        path: max(blob_sizes.get(entries[path].old_blob, 0), blob_sizes.get(entries[path].new_blob, 0))
        for path in binary
    }
    selected = sorted(_select_within(sizes, MAX_BINARY_SIZE))
    parts = dict(texts)

    def diff_binary(paths: Sequence[str]) -> None:
        parts.update(_iter_parts(index.write_diff("--binary", paths=paths), index.list_differences(paths)))

    failed |= _bisect(selected, diff_binary, chunk_size=_MAX_PATHS_IN_COMMAND)
    too_large = {
        path: f"binary, {format_size(sizes[path])}, {_describe_blob(entries[path])}" for path in binary - {*selected}
    }
    text_sizes = {path: len(part) for path, part in texts.items() if path in tracked}
    for path in text_sizes.keys() - _select_within(text_sizes, MAX_TEXT_SIZE):
        too_large[path] = f"a change of {format_size(len(parts.pop(path)))}, {_describe_blob(entries[path])}"
    return _Diff({path: parts[path] for path in entries if path in parts}, failed, too_large)


def _diff_texts(
    index: _ScratchIndex, entries: Sequence[_DiffEntry]
) -> tuple[dict[str, bytes], set[str], dict[str, str]]:
    """Return the patches of text files, the paths of binary files, and why git fails for other paths."""
    texts: dict[str, bytes] = {}
    binary: set[str] = set()

    def diff_paths(paths: Sequence[str], changed: Sequence[_DiffEntry] | None = None) -> None:
        for path, part in _iter_parts(index.write_diff(paths=paths), changed or index.list_differences(paths)):
            if _BINARY_PART.search(part):
                binary.add(path)
            else:
                texts[path] = part

    try:
        diff_paths((), entries)
    except _GitFailed:
        return texts, binary, _bisect([entry.path for entry in entries], diff_paths, chunk_size=_MAX_PATHS_IN_COMMAND)
    return texts, binary, {}


def _iter_parts(diff: Path, entries: Sequence[_DiffEntry]) -> Iterator[tuple[str, bytes]]:
    """Yield the part of each of these entries in a diff."""
    content = diff.read_bytes() if diff.is_file() else b""
    starts = [match.start() for match in re.finditer(rb"(?m)^diff --git ", content)]
    counts = [2 if entry.is_retyped else 1 for entry in entries]
    if len(starts) != sum(counts):
        raise _GitFailed(f"git wrote {len(starts)} differences instead of {sum(counts)}")
    starts.append(len(content))
    position = 0
    for entry, count in zip(entries, counts, strict=True):
        yield entry.path, content[starts[position] : starts[position + count]]
        position += count


def _describe_blob(entry: _DiffEntry) -> str:
    return "removed" if entry.new_blob.strip("0") == "" else f"blob {entry.new_blob}"


def _format_header(root: Path, head: str | None, notes: list[str]) -> bytes:
    lines = [f"Uncommitted changes of {root.name} on {head or 'no commit'}; apply with: git apply <this file>"]
    lines += notes[:_MAX_NOTES]
    lines += [f"and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else []
    return "".join(f"# {line}\n" for line in lines).encode(errors="backslashreplace") + b"\n"


def _has_secret(root: Path, name: str, diff: bytes) -> bool:
    return is_secret_file(name) or any(has_secret(text, name) for text in _iter_texts(root, name, diff))


def _iter_texts(root: Path, name: str, diff: bytes) -> Iterator[str]:
    """Yield the texts in which to look for secrets: a diff, or the readable parts of a binary file, old and new."""
    head, is_binary, _ = diff.partition(b"\nGIT binary patch\n")
    if not is_binary:
        yield diff.decode(errors="replace")
        return
    yield head.decode(errors="replace")
    file, committed = root / name, run_git(root, "cat-file", "blob", f"HEAD:{name}")
    for content in (file.read_bytes() if file.is_file() else b"", committed.stdout if committed.ok else b""):
        yield "\n".join(match[0].decode("ascii") for match in _READABLE.finditer(content))
