"""Run git commands, independently of the user's settings and environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

__all__ = ["GitResult", "disable_filters", "query_status", "run_git"]

# these point git to another repository than that of the folder; git sets some of them in hooks
_LOCATION_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
_GIT_ENVIRON = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # a partial clone must not fetch missing objects from its server
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
}
# start no daemon (in any version of git), write no shared index file, accept any line ending
_CONFIG_OPTIONS = (
    "-c",
    "core.fsmonitor=",
    "-c",
    "core.splitIndex=false",
    "-c",
    "core.safecrlf=false",
    "-c",
    "color.ui=false",
)
_FILTER_SETTING = r"^filter\..*\.(clean|smudge|process|required)$"
_NOT_FOUND_STATUS = 127


@dataclass(frozen=True, slots=True)
class GitResult:
    """The result of a git command.

    Args:
        exit_status: The exit status; 127 if git is not installed.
        stdout: The standard output.
        stderr: The standard error.
    """

    exit_status: int
    stdout: bytes = b""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_status == 0

    @property
    def is_git_missing(self) -> bool:
        """Whether git is not installed."""
        return self.exit_status == _NOT_FOUND_STATUS

    @property
    def is_untrusted(self) -> bool:
        """Whether git does not trust the repository, as its files belong to another user."""
        return "safe.directory" in self.stderr

    @property
    def lines(self) -> list[str]:
        """The output, split into lines."""
        return os.fsdecode(self.stdout).split("\n")[:-1]

    @property
    def records(self) -> list[str]:
        """The output, split at NUL bytes."""
        return os.fsdecode(self.stdout).split("\0")[:-1]


def run_git(
    folder: Path, *arguments: str, input_bytes: bytes = b"", environ: Mapping[str, str] | None = None
) -> GitResult:
    """Run one git command.

    Args:
        folder: The folder to run it in.
        arguments: The command and its arguments.
        input_bytes: The standard input.
        environ: Environment variables for this command only.
    """
    try:
        from git.cmd import Git
        from git.exc import GitCommandNotFound
    except ImportError as error:
        return GitResult(_NOT_FOUND_STATUS, stderr=str(error))
    program = Git.GIT_PYTHON_GIT_EXECUTABLE or "git"
    command = [program, "--no-pager", "-C", str(folder), *_CONFIG_OPTIONS, *arguments]
    try:
        with _open_memory_file() as stdin:
            stdin.write(input_bytes)
            stdin.seek(0)
            status, stdout, stderr = Git().execute(
                [*_unset_location_variables(), *command],
                istream=stdin,
                env={**_GIT_ENVIRON, **(environ or {})},
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
    except GitCommandNotFound as error:
        return GitResult(_NOT_FOUND_STATUS, stderr=str(error))
    return GitResult(status, stdout, stderr)


def _open_memory_file() -> BinaryIO:
    """Open a file in memory; where the system has none, one in its folder for temporary files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("deriva-ml"), "w+b")
    return cast(BinaryIO, TemporaryFile())


def query_status(root: Path, *options: str, excluded: Iterable[Path] = (), only: Iterable[Path] = ()) -> GitResult:
    """Run ``git status`` in the format ``porcelain=v2 -z``.

    If it fails because of one file, such as one whose filter is not installed, or because of a damaged submodule, it is
    repeated without filters and without a look into submodules. The result can then name too many files as changed.

    Args:
        root: The work tree.
        options: More options.
        excluded: Paths to leave out with everything below them. Paths outside of the work tree have no effect.
        only: Paths to look at, with everything below them; by default, the whole work tree.
    """
    arguments = ["status", "--porcelain=v2", "-z", "--no-renames", *options]
    paths = [f":(top,literal){path}" for path in _list_relative(root, only)]
    paths += [f":(exclude,top,literal){path}" for path in _list_relative(root, excluded)]
    environ = {"GIT_LITERAL_PATHSPECS": "0"}  # which would take the excluded paths for file names
    result = run_git(root, *arguments, "--", *paths, environ=environ)
    if result.ok:
        return result
    arguments = [*disable_filters(root), *arguments, "--ignore-submodules=dirty"]
    repeated = run_git(root, *arguments, "--", *paths, environ=environ)
    return repeated if repeated.ok else result


def _list_relative(root: Path, paths: Iterable[Path]) -> list[str]:
    """Return those of these paths that are below the root, relative to it."""
    root = root.resolve()
    resolved = {path.resolve() for path in paths} - {root}
    return sorted(path.relative_to(root).as_posix() for path in resolved if path.is_relative_to(root))


def disable_filters(folder: Path) -> list[str]:
    """Return the options of git that switch off all filters in its settings, the user's own included.

    The files of a commit choose which of the filters are run on them, and a patch can change that.
    """
    settings = run_git(folder, "config", "-z", "--name-only", "--get-regexp", _FILTER_SETTING).records
    options: list[str] = []
    for name in dict.fromkeys(setting.rpartition(".")[0] for setting in settings):
        for setting in ("clean=", "smudge=", "process=", "required=false"):
            options += ["-c", f"{name}.{setting}"]
    return options


def _unset_location_variables() -> list[str]:
    # GitPython can add environment variables, but not remove them
    names = [name for name in _LOCATION_VARIABLES if name in os.environ]
    return ["env", *(part for name in names for part in ("-u", name))] if names else []
