"""Where the code is in a container: the image, as its build has named it in environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deriva_ml_core.models import SourceCode
from deriva_ml_core.notices import doubt
from deriva_ml_core.plugins import hookimpl


@hookimpl
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """Answer where ``DERIVA_MCP_IN_DOCKER`` is true."""
    if environ.get("DERIVA_MCP_IN_DOCKER", "").strip().lower() not in ("true", "1", "yes", "on"):
        return None
    name, digest, commit, version = (
        environ.get(f"DERIVA_MCP_{part}", "").strip()
        for part in ("IMAGE_NAME", "IMAGE_DIGEST", "GIT_COMMIT", "VERSION")
    )
    if not (digest or commit):
        doubt(
            "The container does not say which image it was made from, so this run cannot be repeated. "
            "Set DERIVA_MCP_IMAGE_DIGEST, or DERIVA_MCP_GIT_COMMIT, when the image is built.",
            environ,
        )
    return SourceCode(
        url=f"{name}@{digest}" if name and digest else name,
        checksum=digest or commit,
        version=version or None,
        path=script,
        kind="container",
    )
