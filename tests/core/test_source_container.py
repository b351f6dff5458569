"""The source of a run in a container is what the image's build has said of itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

import pytest

from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
from deriva_ml_core.models import SourceCode
from deriva_ml_core.plugins.builtin import source_container as container
from deriva_ml_core.plugins.builtin.source_container import detect_source

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


@pytest.mark.parametrize("prefix", ["OCI_IMAGE", "ORG_OPENCONTAINERS_IMAGE"])
def test_an_image_that_repeats_its_labels(prefix: str) -> None:
    """Where our own variables are silent, the labels of the OCI specification count, as images repeat them."""
    environ = {
        "DERIVA_MCP_IN_DOCKER": "true",
        f"{prefix}_REVISION": "abcdef",
        f"{prefix}_SOURCE": "https://user:token1234@gitlab.com/org/repo.git",
        f"{prefix}_VERSION": "1.2.3",
    }
    source = detect_source(None, environ)
    assert source
    assert source.url == "https://gitlab.com/org/repo/-/tree/abcdef"
    assert (source.checksum, source.version) == ("abcdef", "1.2.3")
    named = detect_source(None, {**environ, f"{prefix}_REF_NAME": "ghcr.io/org/repo", "IMAGE_DIGEST": "sha256:0123"})
    assert named
    assert (named.url, named.checksum) == ("ghcr.io/org/repo@sha256:0123", "sha256:0123")
    ours = detect_source(None, {**environ, **IMAGE})
    assert ours
    assert (ours.url, ours.checksum) == ("ghcr.io/org/repo@sha256:0123", "sha256:0123")


def test_what_a_build_did_not_know() -> None:
    """``unknown``, which many builds write where they know nothing, names no commit."""
    environ = {"DERIVA_MCP_IN_DOCKER": "true", "DERIVA_MCP_GIT_COMMIT": "unknown", "OCI_IMAGE_REVISION": "abcdef"}
    source = detect_source(None, environ)
    assert source
    assert source.checksum == "abcdef"


def test_a_notebook_in_a_container(tmp_path: Path) -> None:
    """The notebook that runs is known by its variable, for the environment snapshot; the workflow is the image."""
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    source = detect_source(None, {**IMAGE, "DERIVA_ML_NOTEBOOK_PATH": str(notebook)})
    assert source
    assert (source.path, source.kind, source.checksum) == (notebook, "container", "sha256:0123")


DOCKERFILE = Path(__file__).parents[2] / "examples" / "container" / "Dockerfile"


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their words, continued lines joined, comments left out."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def built(text: str, arguments: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a build with these arguments puts into the image's environment and its labels."""
    known, kept = {}, {"ENV": {}, "LABEL": {}}
    for word, rest in instructions(text):
        if word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default)
        elif word in kept:
            for name, value in (part.split("=", 1) for part in shlex.split(rest)):
                kept[word][name] = Template(value).substitute(known)
    assert set(arguments) <= set(known), "each build argument is one that the file takes"
    return kept["ENV"], kept["LABEL"]


def test_the_example_of_a_dockerfile() -> None:
    """Built as its own comment says, the image's environment gives the workflow, and its labels say the same."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    arguments = dict(re.findall(r'--build-arg (\w+)="?([^\s"]+(?:\([^)]*\))?)', text))
    assert set(arguments) == {"IMAGE_NAME", "VERSION", "GIT_COMMIT", "GIT_SOURCE"}
    arguments |= {"GIT_COMMIT": "0123abcd"}
    environ, labels = built(text, arguments)
    script = Path("/app/train.py")
    source = detect_source(script, environ)
    assert source
    assert (source.url, source.checksum, source.version) == ("ghcr.io/org/repo", "0123abcd", "1.2.3")
    (digest,) = re.findall(r"--env (\w+)=", text)
    pushed = detect_source(script, {**environ, digest: "sha256:4567"})
    assert pushed
    assert (pushed.url, pushed.checksum) == ("ghcr.io/org/repo@sha256:4567", "sha256:4567")
    nameless = detect_source(script, {**environ, "DERIVA_MCP_IMAGE_NAME": ""})
    assert nameless
    assert nameless.url == "https://github.com/org/repo/tree/0123abcd"
    assert labels == {
        "org.opencontainers.image.ref.name": "ghcr.io/org/repo",
        "org.opencontainers.image.version": "1.2.3",
        "org.opencontainers.image.revision": "0123abcd",
        "org.opencontainers.image.source": "https://github.com/org/repo",
    }


def test_each_variable_of_the_example_is_read() -> None:
    """The Dockerfile sets no variable that nobody reads."""
    environ, _ = built(DOCKERFILE.read_text(encoding="utf-8"), {})
    read = {
        *container.NAME_VARIABLES,
        *container.DIGEST_VARIABLES,
        *container.COMMIT_VARIABLES,
        *container.VERSION_VARIABLES,
        *container.SOURCE_VARIABLES,
    }
    assert set(environ) - read == {container.IN_CONTAINER_VARIABLE, "DERIVA_ML_HOME"}
