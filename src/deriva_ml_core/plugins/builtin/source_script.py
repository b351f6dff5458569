"""Built-in plugin that detects the source last: the running script or installed program, or what has no file."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deriva_ml_core.git import file_source, tree_url
from deriva_ml_core.git.checksum import content_hash
from deriva_ml_core.models import SourceCode
from deriva_ml_core.plugins.manager import hookimpl
from deriva_ml_core.script_detection import is_installed_file, read_program_text
from deriva_ml_core.user_warnings import warn_not_reproducible

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_EXPLANATIONS = {
    "command": "The program is an argument of `python -c` and in no file, so this run cannot be repeated.",
    "stdin": "The program was read from the standard input and is in no file, so this run cannot be repeated.",
    "interactive": "An interactive session has no file, so this run is recorded but cannot be repeated.",
}


@hookimpl(trylast=True)
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode:
    """Return the script, or the installed program; what has no file causes a warning."""
    if script is None:
        return _source_without_file(environ)
    if is_installed_file(script) and (distribution := _find_distribution(script)) is not None:
        return _distribution_source(script, distribution, environ)
    return file_source(script, "zipapp" if zipfile.is_zipfile(script) else "script", environ)


def _source_without_file(environ: Mapping[str, str]) -> SourceCode:
    kind, text = read_program_text()
    warn_not_reproducible(f"{_EXPLANATIONS[kind]} Write the code to a script and run it.", environ)
    return SourceCode(kind=kind, checksum="" if text is None else content_hash(text))


def _find_distribution(file: Path) -> Distribution | None:
    """Return the installed distribution that a file belongs to."""
    from importlib.metadata import distributions

    for distribution in distributions():
        if f"\n{_relative_path(file, distribution)}," in f"\n{distribution.read_text('RECORD') or ''}":
            return distribution
    return None


def _relative_path(file: Path, distribution: Distribution) -> str:
    return Path(os.path.relpath(file, str(distribution.locate_file("")))).as_posix()


def _distribution_source(file: Path, distribution: Distribution, environ: Mapping[str, str]) -> SourceCode:
    """Return the commit that pip installed, else the package URL (https://github.com/package-url/purl-spec)."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    origin = _read_origin(distribution)
    url = tree_url(str(origin.get("url", "")), str((origin.get("vcs_info") or {}).get("commit_id", "")))
    if not url:
        relative = _relative_path(file, distribution)
        fragment = "" if relative.startswith("..") else f"#{quote(relative)}"
        url = f"pkg:{'generic' if origin else 'pypi'}/{name}@{quote(distribution.version, safe='')}{fragment}"
        if origin:
            warn_not_reproducible(
                f"{name} {distribution.version} was installed from {origin.get('url')}, where others may not find it. "
                "Install it from a package index or from a commit.",
                environ,
            )
    checksum = content_hash(file.read_bytes())
    return SourceCode(url=url, checksum=checksum, version=distribution.version, path=file, kind="distribution")


def _read_origin(distribution: Distribution) -> Mapping[str, Any]:
    """Return where a distribution was installed from if not from an index (PEP 610), else an empty mapping."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}
