"""Source detection in containers."""

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


def test_image() -> None:
    """The URL includes the digest, the checksum is the digest, and version and script are recorded."""
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
def test_missing_variables(missing: tuple[str, ...], url: str, checksum: str, version: str | None) -> None:
    """Without a digest, the checksum is the commit and the URL the name; other variables may be missing too."""
    source = detect_source(None, without(*missing))
    assert source
    assert (source.url, source.checksum, source.version) == (url, checksum, version)


def test_image_without_digest_and_commit() -> None:
    """Without digest and commit there is one warning, or an error if clean code is required."""
    environ = without("IMAGE_DIGEST", "GIT_COMMIT")
    with pytest.warns(DerivaMLWarning, match="DERIVA_MCP_IMAGE_DIGEST") as caught:
        source = detect_source(None, environ)
    assert source
    assert (len(caught), source.url, source.checksum) == (1, "ghcr.io/org/repo", "")
    with pytest.raises(NotReproducible):
        detect_source(None, {**environ, "DERIVA_ML_REQUIRE_CLEAN": "1"})


@pytest.mark.parametrize(
    ("value", "inside"),
    [("true", True), ("TRUE", True), (" True ", True), ("1", True), ("false", False), ("0", False), ("", False)],
)
def test_only_inside_a_container(value: str, inside: bool) -> None:
    """Outside a container the plugin returns None, whatever else is set."""
    assert (detect_source(None, {**IMAGE, "DERIVA_MCP_IN_DOCKER": value}) is not None) is inside
    assert detect_source(None, without("IN_DOCKER")) is None


@pytest.mark.parametrize("prefix", ["OCI_IMAGE", "ORG_OPENCONTAINERS_IMAGE"])
def test_oci_label_variables(prefix: str) -> None:
    """Variables with the labels of the OCI specification are used if the DERIVA_MCP variables are not set."""
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
    source = detect_source(None, {**environ, **IMAGE})
    assert source
    assert (source.url, source.checksum) == ("ghcr.io/org/repo@sha256:0123", "sha256:0123")


def test_unknown_values_are_ignored() -> None:
    """``unknown``, which many builds write for a missing value, is ignored."""
    environ = {"DERIVA_MCP_IN_DOCKER": "true", "DERIVA_MCP_GIT_COMMIT": "unknown", "OCI_IMAGE_REVISION": "abcdef"}
    source = detect_source(None, environ)
    assert source
    assert source.checksum == "abcdef"


def test_notebook_in_a_container(tmp_path: Path) -> None:
    """The notebook's variable sets the path; the workflow is still the image."""
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    source = detect_source(None, {**IMAGE, "DERIVA_ML_NOTEBOOK_PATH": str(notebook)})
    assert source
    assert (source.path, source.kind, source.checksum) == (notebook, "container", "sha256:0123")


DOCKERFILE = Path(__file__).parents[2] / "examples" / "container" / "Dockerfile"


def parse_dockerfile(text: str) -> list[tuple[str, str]]:
    """Parse a Dockerfile's instructions, with continued lines joined and comments removed."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def simulate_build(text: str, arguments: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment and the labels of an image built with these arguments."""
    known, result = {}, {"ENV": {}, "LABEL": {}}
    for word, rest in parse_dockerfile(text):
        if word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default)
        elif word in result:
            for name, value in (part.split("=", 1) for part in shlex.split(rest)):
                result[word][name] = Template(value).substitute(known)
    assert set(arguments) <= set(known), "each build argument is one that the file takes"
    return result["ENV"], result["LABEL"]


def test_example_dockerfile() -> None:
    """Built as its comment says, the example's environment identifies the workflow, and its labels agree."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    arguments = dict(re.findall(r'--build-arg (\w+)="?([^\s"]+(?:\([^)]*\))?)', text))
    assert set(arguments) == {"IMAGE_NAME", "VERSION", "GIT_COMMIT", "GIT_SOURCE"}
    arguments |= {"GIT_COMMIT": "0123abcd"}
    environ, labels = simulate_build(text, arguments)
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


def test_example_sets_only_known_variables() -> None:
    """The example Dockerfile sets no variable that the plugin does not read."""
    environ, _ = simulate_build(DOCKERFILE.read_text(encoding="utf-8"), {})
    read = {
        *container.NAME_VARIABLES,
        *container.DIGEST_VARIABLES,
        *container.COMMIT_VARIABLES,
        *container.VERSION_VARIABLES,
        *container.SOURCE_VARIABLES,
    }
    assert set(environ) - read == {container.IN_CONTAINER_VARIABLE, "DERIVA_ML_HOME"}
