"""Real git repositories for tests, independent of the user's git settings."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

REMOTE = "https://github.com/org/repo.git"


@dataclass(frozen=True)
class Repository:
    """A work tree of a real repository."""

    root: Path

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in the work tree and return its output."""
        process = subprocess.run(["git", *arguments], cwd=self.root, input=stdin, capture_output=True)
        assert process.returncode == 0, process.stderr.decode()
        return process.stdout.decode().strip()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file and create its folders."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, *files: Path, message: str = "work") -> str:
        """Commit these files, or all, and return the commit."""
        self.git("add", *(str(file) for file in files or (self.root,)))
        self.git("commit", "-q", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def hash(self, file: Path) -> str:
        """Return what ``git hash-object`` prints."""
        return self.git("hash-object", str(file))


def make_repository(root: Path, remote: str | None = REMOTE) -> Repository:
    """Create a repository without a commit."""
    root.mkdir(parents=True, exist_ok=True)
    repository = Repository(root.resolve())
    repository.git("init", "-q", "-b", "main")
    if remote:
        repository.git("remote", "add", "origin", remote)
    return repository
