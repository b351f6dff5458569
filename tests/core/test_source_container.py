"""The source of a run in a container is what the image's build has said of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.builtin.source_container import detect_source
from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
from deriva_ml_core.models import SourceCode

IMAGE = {
    "DERIVA_MCP_IN_DOCKER": "true",
    "DERIVA_MCP_IMAGE_NAME": "ghcr.io/org/repo",
    "DERIVA_MCP_IMAGE_DIGEST": "sha256:0123",
    "DERIVA_MCP_GIT_COMMIT": "abcdef",
    "DERIVA_MCP_VERSION": "1.2.3",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in IMAGE.items() if name.removeprefix("DERIVA_MCP_") not in names}


def test_an_image() -> None:
    """URL with the digest, the digest as checksum, the version, and the script for the environment snapshot."""
    script = Path("/app/train.py")
    expected = SourceCode(
        url="ghcr.io/org/repo@sha256:0123", checksum="sha256:0123", version="1.2.3", path=script, kind="container"
    )
    assert detect_source(script, IMAGE) == expected


@pytest.mark.parametrize(
    ("missing", "url", "checksum", "version"),
    [
        (("IMAGE_DIGEST",), "ghcr.io/org/repo", "abcdef", "1.2.3"),
        (("GIT_COMMIT",), "ghcr.io/org/repo@sha256:0123", "sha256:0123", "1.2.3"),
        (("IMAGE_NAME",), "", "sha256:0123", "1.2.3"),
        (("VERSION",), "ghcr.io/org/repo@sha256:0123", "sha256:0123", None),
    ],
)
def test_what_is_not_said(missing: tuple[str, ...], url: str, checksum: str, version: str | None) -> None:
    """Without a digest the commit is the checksum and the name alone the URL; the rest may be missing too."""
    source = detect_source(None, without(*missing))
    assert source
    assert (source.url, source.checksum, source.version) == (url, checksum, version)


def test_an_image_that_says_nothing() -> None:
    """Neither digest nor commit: one warning, an error where the environment asks for clean code."""
    environ = without("IMAGE_DIGEST", "GIT_COMMIT")
    with pytest.warns(DerivaMLWarning, match="DERIVA_MCP_IMAGE_DIGEST") as said:
        source = detect_source(None, environ)
    assert source
    assert (len(said), source.url, source.checksum) == (1, "ghcr.io/org/repo", "")
    with pytest.raises(NotReproducible):
        detect_source(None, {**environ, "DERIVA_ML_REQUIRE_CLEAN": "1"})


@pytest.mark.parametrize(
    ("said", "inside"),
    [("true", True), ("TRUE", True), (" True ", True), ("1", True), ("false", False), ("0", False), ("", False)],
)
def test_only_where_it_is_said(said: str, inside: bool) -> None:
    """Outside a container nobody answers, whatever else is set."""
    assert (detect_source(None, {**IMAGE, "DERIVA_MCP_IN_DOCKER": said}) is not None) is inside
    assert detect_source(None, without("IN_DOCKER")) is None
