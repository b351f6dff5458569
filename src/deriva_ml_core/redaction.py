"""Replace secrets before anything is recorded, and name the files and changes that hold some."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.secret_detection import (
    Secret,
    Syntax,
    find_command_passwords,
    find_secrets,
    find_url_logins,
    is_literal,
    is_plain_value,
    is_random,
    is_secret_name,
    is_tokens_name,
    mark_credentials,
    name_words,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "has_secret",
    "is_secret_file",
    "is_secret_name",
    "redact",
    "redact_address",
    "redact_text",
    "redact_url_logins",
]


def _split_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# the login in a whole text that is the address of a catalog, also without a scheme; a folder's name may have an "@"
_ADDRESS_LOGIN = re.compile(r"(?is)\A(?!file:)((?:[a-z][a-z0-9+.-]*://)?).+@|\A(file://)[^/]+@")
_HUNK = re.compile(r"(?m)^@@ ")
_PLAIN_NAME = re.compile(r"(?!eyJ)(?:[A-Za-z0-9]{0,15}[_.]|[A-Za-z0-9]{1,15}\Z)*")
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_MAPPING_OVERRIDE = re.compile(r"[+~]{0,2}[\w./@:-]+=[^'\"]*?\{")
_MAPPING_ENTRY = re.compile(r"(?P<name>(?<=[{,\s])[\w.-]+):\s*(?P<value>[^\s'\"{}\[\],][^{},]*)")

_SETTINGS_SUFFIXES = _split_words(
    ".bash .bat .cfg .cnf .conf .env .envrc .hcl .ini .json .properties .ps1 .sh .tfstate .tfvars .toml .yaml .yml .zsh"
)
_SETTINGS_FILES = _split_words(
    ".bash_profile .bashrc .boto .condarc .npmrc .profile .s3cfg .yarnrc .zshenv .zshrc config dockerfile"
)
_TEXT_SUFFIXES = _split_words(".adoc .log .md .rst .txt")
_KEY_FILE_SUFFIXES = _split_words(".jks .kdbx .key .keystore .kubeconfig .p12 .pem .pfx .ppk")
_CREDENTIAL_FILES = _split_words(
    ".boto .databrickscfg .dockercfg .git-credentials .htpasswd .my.cnf .mylogin.cnf .netrc .pgpass .pypirc .s3cfg "
    ".vault-token _netrc application_default_credentials.json credentials credentials.json credentials.tfrc.json "
    "id_dsa id_ecdsa id_ed25519 id_rsa kaggle.json kubeconfig rclone.conf"
)
_CREDENTIAL_PATHS = (
    ".cargo/credentials.toml",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".dvc/config.local",
    ".kube/config",
    "huggingface/stored_tokens",
    "huggingface/token",
)
_CREDENTIAL_FOLDERS = _split_words(".gnupg .kaggle .password-store .ssh")
_HISTORY_FILE = re.compile(r"\.[\w-]*(?:history|histfile)|fish_history|\.lesshst|\.viminfo|consolehost_history\.txt")


def is_secret_file(path: str) -> bool:
    """Whether files of this name usually hold secrets: ``.env``, ``id_rsa``, ``server.pem``, ``.bash_history``."""
    file = PurePosixPath(path.lower())
    name = file.name
    if name.startswith(".env"):
        return name == ".env" or (name.startswith(".env.") and not name.endswith((".example", ".sample", ".template")))
    return (
        name in _CREDENTIAL_FILES
        or file.suffix in _KEY_FILE_SUFFIXES
        or _HISTORY_FILE.fullmatch(name) is not None
        or not _CREDENTIAL_FOLDERS.isdisjoint(file.parts[:-1])
        or any(file.match(credential_path) for credential_path in _CREDENTIAL_PATHS)
    )


def has_secret(text: str, file: str = "") -> bool:
    """Whether a text, such as a diff, holds a secret: a known token, or a literal under a secret's name.

    Args:
        text: The text of a program or of settings.
        file: The file's name; in YAML, ``.env`` and the like, a literal needs no quotes.
    """
    if _HUNK.search(text):
        text = re.sub(r"(?m)^[+-]", " ", text)
    return any(
        secret.is_known or is_literal(text[secret.start : secret.end])
        for secret in find_secrets(text, _file_syntax(file), with_users=False)
    )


def _file_syntax(file: str) -> Syntax:
    path = PurePosixPath(file.lower())
    if path.suffix in _SETTINGS_SUFFIXES or path.name in _SETTINGS_FILES or path.name.startswith(".env"):
        return "settings"
    return "text" if path.suffix in _TEXT_SUFFIXES else "code"


def redact_text(text: str, syntax: Syntax = "text") -> str:
    """Replace the secrets in a text: known tokens, passwords in URLs, ``api_key=…``, ``"token": "…"``.

    Every recorded text passes through this function. It escapes what UTF-8 cannot encode, which no record could hold.

    Args:
        text: The text.
        syntax: What the text is. In a program, a secret is a literal in quotes, or has a known form.
    """
    text = escape_surrogates(text)
    return _replace(text, find_secrets(text, syntax))


def redact_url_logins(text: str) -> str:
    """Replace the logins of the URLs in a text: passwords, and on the web user names."""
    return _replace(text, find_url_logins(text))


_DATABASE_USER = re.compile(r"(?i)postgres(?:ql)?://[^:@/?]*@")


def redact_address(address: str) -> str:
    """Replace the login in the address of a catalog, also in one without a scheme, and other secrets in it."""
    if _DATABASE_USER.match(address):  # a user without a password
        return redact_text(address)
    return redact_text(_ADDRESS_LOGIN.sub(rf"\1\2{_redaction_mark('login')}@", address))


def redact(value: JsonValue) -> JsonValue:
    """Replace the secrets in a value by ``[redacted: <kind>]``.

    Args:
        value: A JSON value: an environment, a configuration, an argument list.

    Returns:
        The value with replacements for each string or number under a secret's name, for the items under ``tokens``
        that look like credentials, for the item after an option of a secret's name in a list, and for text with a
        secret's form. References such as ``${HF_TOKEN}`` stay.
    """
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        names = dict(_iter_described_names(value))
        return {_redact_name(name): _redact_entry(names.get(name, name), part) for name, part in value.items()}
    return _redact_list(value) if isinstance(value, list) else value


def _redact_name(name: str) -> str:
    # settings have thousands of names, and one of short words has the form of no secret
    return name if _PLAIN_NAME.fullmatch(name) else redact_text(name)


def _iter_described_names(value: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Yield the keys whose other entries name their values a secret: ``{"name": "DB_PASSWORD", "value": …}``."""
    name = value.get("name", value.get("key"))
    if isinstance(name, str) and "value" in value and is_secret_name(name):
        yield "value", name
    if "username" in value and isinstance(name, str) and re.fullmatch("[0-9a-f]{32}", name):
        yield "key", "api_key"


def _redact_entry(name: str, value: JsonValue) -> JsonValue:
    if is_secret_name(name):
        return _mask_value(name, value)
    return _mask_tokens(name, value) if is_tokens_name(name) else redact(value)


def _mask_value(name: str, value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        if name_words(name)[-1] in ("pass", "pw"):  # the settings of a pass
            return redact(value)
        return {_redact_name(key): _mask_value(name, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_mask_value(name, part) for part in value]
    is_kept = value in (None, "") or isinstance(value, bool) or is_plain_value(name, str(value))
    return value if is_kept else _redaction_mark(name)


def _mask_tokens(name: str, value: JsonValue) -> JsonValue:
    """Redact what is under ``tokens``: the tokens of services, not those of a text."""
    if isinstance(value, str):
        return _redaction_mark(name) if is_random(value) and not is_plain_value(name, value) else redact_text(value)
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return redact(value)
    marks = mark_credentials([str(part) for part in parts])
    masked: list[JsonValue] = [
        _redaction_mark(name) if is_secret else redact_text(str(part))
        for part, is_secret in zip(parts, marks, strict=True)
    ]
    return dict(zip(map(_redact_name, value), masked, strict=True)) if isinstance(value, dict) else masked


def _redact_list(values: Sequence[JsonValue]) -> list[JsonValue]:
    """Redact a list, which may be a command line: ``--password x``, ``--api-key=x``, ``-u user:x``."""
    redacted: list[JsonValue] = []
    option = ""
    for value in _mask_command_passwords(values):
        if option and isinstance(value, str) and not re.match(r"--|-[A-Za-z]\Z", value):
            redacted.append(value if is_plain_value(option, value) else _redaction_mark(option))
            option = ""
            continue
        name, equals, assigned = value.partition("=") if isinstance(value, str) else ("", "", "")
        is_option = _OPTION.fullmatch(name) is not None and is_secret_name(name)
        option = name.lstrip("-") if is_option and not equals else ""
        is_masked = is_option and assigned and not is_plain_value(name, assigned)
        redacted.append(f"{name}={_redaction_mark(name.lstrip('-'))}" if is_masked else _redact_argument(value))
    return redacted


def _mask_command_passwords(values: Sequence[JsonValue]) -> list[JsonValue]:
    """Replace the passwords that programs take in options of one letter, up to the end of the argument."""
    words = list(values)
    if not any(isinstance(word, str) and word.startswith("-") for word in words):
        return words
    texts = [word if isinstance(word, str) and "\0" not in word else "" for word in words]
    line = "\0".join(texts)
    starts, start = list[int](), 0
    for text in texts:
        starts.append(start)
        start += len(text) + 1
    for secret in find_command_passwords(line):
        index = bisect_right(starts, secret.start) - 1
        if " " not in texts[index][: secret.start - starts[index]]:  # a command in one argument is redacted as a text
            words[index] = texts[index][: secret.start - starts[index]] + _redaction_mark(secret.kind)
    return words


def _redact_argument(value: JsonValue) -> JsonValue:
    """Redact an item of a list, which may be a Hydra override with a mapping: ``login={token: x}``."""
    if isinstance(value, str) and _MAPPING_OVERRIDE.match(value):
        entries = (
            Secret(entry["name"], *entry.span("value"))
            for entry in _MAPPING_ENTRY.finditer(value)
            if is_secret_name(entry["name"]) and not is_plain_value(entry["name"], entry["value"])
        )
        value = _replace(value, entries)
    return redact(value)


def _replace(text: str, secrets: Iterable[Secret]) -> str:
    """Replace secrets by marks; of overlapping ones, the first is named."""
    parts, end = list[str](), 0
    for secret in sorted(secrets, key=lambda each: (each.start, -each.end)):
        if text.startswith("[redacted", secret.start):
            continue
        if secret.start >= end:
            parts += [text[end : secret.start], _redaction_mark(secret.kind)]
        end = max(end, secret.end)
    return "".join((*parts, text[end:]))


def _redaction_mark(kind: str) -> str:
    return f"[redacted: {kind}]"
