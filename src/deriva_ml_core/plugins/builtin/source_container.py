"""Built-in plugin that detects the source in a container: the image, named by environment variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deriva_ml_core.git import tree_url
from deriva_ml_core.models import SourceCode
from deriva_ml_core.plugins.manager import hookimpl
from deriva_ml_core.user_warnings import warn_not_reproducible

IN_CONTAINER_VARIABLE = "DERIVA_MCP_IN_DOCKER"

# A process can identify its own image only by environment variables. After the DERIVA_MCP variables come those in which
# images repeat the labels of the OCI image specification (org.opencontainers.image.*), in the two spellings in use. A
# digest exists only after the build, so it is set when the container is started.
NAME_VARIABLES = ("DERIVA_MCP_IMAGE_NAME", "OCI_IMAGE_REF_NAME", "ORG_OPENCONTAINERS_IMAGE_REF_NAME")
DIGEST_VARIABLES = ("DERIVA_MCP_IMAGE_DIGEST", "OCI_IMAGE_DIGEST", "IMAGE_DIGEST")
COMMIT_VARIABLES = ("DERIVA_MCP_GIT_COMMIT", "OCI_IMAGE_REVISION", "ORG_OPENCONTAINERS_IMAGE_REVISION")
VERSION_VARIABLES = ("DERIVA_MCP_VERSION", "OCI_IMAGE_VERSION", "ORG_OPENCONTAINERS_IMAGE_VERSION")
SOURCE_VARIABLES = ("OCI_IMAGE_SOURCE", "ORG_OPENCONTAINERS_IMAGE_SOURCE")
"""The repository that the image was built from; with its commit, the URL of an image without a name."""

NOTEBOOK_VARIABLE = "DERIVA_ML_NOTEBOOK_PATH"


@hookimpl
def detect_source(script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
    """Return the image if ``DERIVA_MCP_IN_DOCKER`` is true."""
    if environ.get(IN_CONTAINER_VARIABLE, "").strip().lower() not in ("true", "1", "yes", "on"):
        return None
    name, digest, commit = (
        _first_value(environ, names) for names in (NAME_VARIABLES, DIGEST_VARIABLES, COMMIT_VARIABLES)
    )
    if not (digest or commit):
        warn_not_reproducible(
            "The container's image is unknown, so this run cannot be repeated. "
            "Set DERIVA_MCP_IMAGE_DIGEST when you start the container, or DERIVA_MCP_GIT_COMMIT in its build.",
            environ,
        )
    return SourceCode(
        url=(f"{name}@{digest}" if digest else name)
        if name
        else tree_url(_first_value(environ, SOURCE_VARIABLES), commit),
        checksum=digest or commit,
        version=_first_value(environ, VERSION_VARIABLES) or None,
        path=script or _notebook_path(environ),
        kind="container",
    )


def _first_value(environ: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the first of these variables that is set; ``unknown``, as some builds leave it, counts as unset."""
    values = (environ.get(name, "").strip() for name in names)
    return next((value for value in values if value and value.lower() != "unknown"), "")


def _notebook_path(environ: Mapping[str, str]) -> Path | None:
    file = Path(environ.get(NOTEBOOK_VARIABLE, ""))
    return file.absolute() if file.suffix == ".ipynb" and file.is_file() else None
