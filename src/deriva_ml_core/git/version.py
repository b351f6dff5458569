"""The version of the project that a file belongs to."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from deriva_ml_core.git.command import run_git

__all__ = ["project_version"]


def project_version(file: Path, root: Path | None) -> str | None:
    """The version: setuptools-scm's where the project uses it, else the project's own word, else ``git describe``.

    Args:
        file: A file of the project; its pyproject.toml is the nearest one in the folders above.
        root: The repository, beyond which no pyproject.toml is looked for; None where there is none.

    Returns:
        The version; None where the project has none.
    """
    project = next(filter(Path.is_file, _pyproject_candidates(file, root)), None)
    settings = _read_pyproject(project) if project else {}
    if project and "setuptools_scm" in settings.get("tool", {}) and (version := _scm_version(project)):
        return version
    if isinstance(version := settings.get("project", {}).get("version"), str):
        return version
    described = run_git(root, "describe", "--tags", "--always") if root else None
    return described.lines[0] if described and described.ok else None


def _pyproject_candidates(file: Path, root: Path | None) -> Iterator[Path]:
    for folder in file.parents:
        yield folder / "pyproject.toml"
        if folder == root:
            return


def _read_pyproject(project: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _scm_version(project: Path) -> str | None:
    # whatever is wrong with the project's settings, or worth a warning in them: the version is a courtesy
    with warnings.catch_warnings(), suppress(Exception, SystemExit):
        warnings.simplefilter("ignore")
        from setuptools_scm import Configuration, _get_version

        return _get_version(Configuration.from_file(str(project)), force_write_version_files=False)
    return None
