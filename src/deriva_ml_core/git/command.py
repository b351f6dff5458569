"""The one door to git: a command that reads, whatever the user's settings and environment say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

__all__ = ["GitResult", "run_git"]

# these would send git to another repository than the one of the folder that is asked about, as in a git hook
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
    # no object that a partial clone has left at its server is fetched
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
}
# start no daemon (in any version of git), write no second index file, take any line ending
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
_NOT_FOUND_STATUS = 127


@dataclass(frozen=True, slots=True)
class GitResult:
    """What git said.

    Args:
        exit_status: Its exit status; 127 where there is no git.
        stdout: Its standard output.
        stderr: Its standard error.
    """

    exit_status: int
    stdout: bytes = b""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.exit_status == 0

    @property
    def is_git_missing(self) -> bool:
        """Whether there is no git to ask."""
        return self.exit_status == _NOT_FOUND_STATUS

    @property
    def is_untrusted(self) -> bool:
        """Whether git does not trust the repository, as its files belong to someone else."""
        return "safe.directory" in self.stderr

    @property
    def lines(self) -> list[str]:
        """Its output line by line."""
        return os.fsdecode(self.stdout).split("\n")[:-1]

    @property
    def records(self) -> list[str]:
        """Its output where it ends each record with a NUL byte."""
        return os.fsdecode(self.stdout).split("\0")[:-1]


def run_git(
    folder: Path, *arguments: str, input_bytes: bytes = b"", environ: Mapping[str, str] | None = None
) -> GitResult:
    """Run one git command.

    Args:
        folder: Where.
        arguments: The command and its arguments.
        input_bytes: Its standard input.
        environ: Environment variables for this command alone.
    """
    try:
        from git.cmd import Git
        from git.exc import GitCommandNotFound
    except ImportError as error:
        return GitResult(_NOT_FOUND_STATUS, stderr=str(error))
    program = Git.GIT_PYTHON_GIT_EXECUTABLE or "git"
    command = [program, "--no-pager", "-C", str(folder), *_CONFIG_OPTIONS, *arguments]
    try:
        with TemporaryFile() as stdin:
            stdin.write(input_bytes)
            stdin.seek(0)
            status, output, complaint = Git().execute(
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
    return GitResult(status, output, complaint)


def _unset_location_variables() -> list[str]:
    # GitPython adds to the environment and takes nothing out of it
    found = [name for name in _LOCATION_VARIABLES if name in os.environ]
    return ["env", *(part for name in found for part in ("-u", name))] if found else []
