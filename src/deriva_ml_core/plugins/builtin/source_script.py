"""Built-in plugin that detects the source last: the running script, or an interactive session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deriva_ml_core.git import file_source
from deriva_ml_core.models import SourceCode
from deriva_ml_core.plugins.manager import hookimpl
from deriva_ml_core.user_warnings import warn_not_reproducible


@hookimpl(trylast=True)
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode:
    """Return the script; an interactive session has no file, which causes a warning."""
    if script:
        return file_source(script, "script", environ)
    warn_not_reproducible(
        "An interactive session has no file, so this run is recorded but cannot be repeated. "
        "Write the code to a script and run it.",
        environ,
    )
    return SourceCode(kind="interactive")
