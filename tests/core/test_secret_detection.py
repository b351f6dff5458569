"""Detection of secrets on a corpus: every true secret is found, and no harmless value is redacted."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any

import pytest
from secret_corpus import (
    HARMLESS_FILES,
    HARMLESS_TEXTS,
    HARMLESS_VALUES,
    SECRET_FILES,
    SECRET_TEXTS,
    SECRET_VALUES,
    SecretFile,
    SecretText,
    SecretValue,
    random_base85,
)

from deriva_ml_core.redaction import has_secret, is_secret_file, redact, redact_text

ROOT = Path(__file__).parents[2]


def as_diff(content: str, sign: str = "+") -> str:
    """Return the lines of a file as added, removed or context lines."""
    return "@@ -1 +1 @@\n" + "".join(f"{sign}{line}\n" for line in content.splitlines())


@pytest.mark.parametrize("case", SECRET_VALUES, ids=lambda case: case.form)
def test_secret_in_a_value_is_redacted(case: SecretValue) -> None:
    """The secret in a configuration, an environment or a command line is replaced, and the rest stays."""
    redacted = json.dumps(redact(case.value))
    assert case.secret not in redacted
    assert case.kept in redacted
    assert "[redacted: " in redacted


@pytest.mark.parametrize("case", SECRET_TEXTS, ids=lambda case: case.form)
def test_secret_in_a_text_is_redacted(case: SecretText) -> None:
    """The secret in a description or message is replaced, and the rest stays."""
    redacted = redact_text(case.text)
    assert case.secret not in redacted
    assert case.kept in redacted
    assert "[redacted: " in redacted


@pytest.mark.parametrize("case", SECRET_FILES, ids=lambda case: f"{case.form} {case.path}")
@pytest.mark.parametrize("sign", ["+", "-", " "])
def test_secret_in_a_file_is_detected(case: SecretFile, sign: str) -> None:
    """A file with a secret is detected by its name or by a line that is added, removed or next to a change."""
    assert is_secret_file(case.path) or has_secret(as_diff(case.content, sign), case.path)


@pytest.mark.parametrize("value", HARMLESS_VALUES, ids=str)
def test_harmless_value_is_kept(value: Any) -> None:
    """Settings of a training, hashes, references to secrets and ordinary command lines stay unchanged."""
    assert redact(value) == value


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_harmless_text_is_kept(text: str) -> None:
    """Sentences about tokens, passwords and passes stay unchanged."""
    assert redact_text(text) == text


@pytest.mark.parametrize("path", HARMLESS_FILES)
def test_harmless_file_is_kept(path: str) -> None:
    """Programs and settings that name or describe secrets, and hold none, do not count as secret."""
    assert not is_secret_file(path)
    assert not has_secret(as_diff(HARMLESS_FILES[path]), path)


@pytest.mark.parametrize("file", [*ROOT.glob("src/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "pyproject.toml"], ids=str)
def test_this_repository_holds_no_secret(file: Path) -> None:
    """No module and no page of this repository counts as secret."""
    assert not has_secret(as_diff(file.read_text(encoding="utf-8")), file.name)


@pytest.mark.parametrize("case", [*SECRET_VALUES, *SECRET_TEXTS], ids=lambda case: case.form)
def test_redacting_again_changes_nothing(case: SecretValue | SecretText) -> None:
    """A mark is no secret."""
    redacted = redact(case[1])
    assert redact(redacted) == redacted


@pytest.mark.parametrize("seed", range(4))
def test_random_text_is_no_secret(seed: int) -> None:
    """A megabyte of base85, as in a binary patch, holds no secret, whatever the kind of file."""
    noise = random_base85(2**20, seed)
    assert not has_secret(noise, "model.bin")
    assert not has_secret(noise, "notes.txt")
    assert redact_text(noise) == noise


@pytest.mark.parametrize("text", ["?SiG=", "-OTP=", "&pw=", "token: ", "://a:b@", "mysql -p", '"key": "', "PWD=;"])
def test_time_is_linear_in_the_length(text: str) -> None:
    """A text that is 50 times as long takes about 50 times as long, also if each word is a marker; not 2,500 times.

    The bound is far from both. The collector of garbage is off, since its time depends on the other tests' objects.
    """

    def cpu_time(count: int) -> float:
        repeated = text * count
        start = time.process_time()
        has_secret(repeated, "a.yaml")
        redact_text(repeated)
        return time.process_time() - start

    gc.collect()
    gc.disable()
    try:
        short = min(cpu_time(400) for _ in range(5))
        assert cpu_time(20_000) < 400 * short
    finally:
        gc.enable()
