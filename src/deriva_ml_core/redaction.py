"""Detect secrets by their name and their form, and replace them before anything is recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

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


_WORD_PATTERN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = _split_words(
    "authorization bearer cookie cookies credential credentials creds jwt otp secret secrets totp"
)
# also at the end of a longer word, as in PGPASSWORD
_SECRET_SUFFIX = re.compile(
    r"(?:password|passwd|passphrase|passcode|apikey|accesskey|secretkey|privatekey|signingkey|authtoken|accesstoken|"
    r"apitoken|sessionid|sessid)s?\Z"
)
_SECRET_PAIRS: Mapping[str, frozenset[str]] = {
    "key": _split_words(
        "access account anthropic api auth aws azure comet consumer deploy encryption gcp hf host license master "
        "neptune openai private secret session shared signing ssh subscription wandb"
    ),
    "pass": _split_words(
        "admin database db email ftp git http ldap login mail mongo mysql pg postgres proxy redis registry root smtp "
        "ssh sudo user"
    ),
    "pat": _split_words("ado azure devops docker gh github gitlab"),
    "tokens": _split_words("access api auth bearer id oauth personal refresh session"),
}
# tokens of language models are not secrets
_MODEL_TOKEN_WORDS = _split_words(
    "additional audio batch begin boi bos class cls decoder end eoi eos eot first forced image input last left mask "
    "max min next num oov output pad patch per prefix prompt right sep sequence source special speech start stop "
    "suffix target text time unk unknown video vision visual word"
)
# words after a secret's name that mark a value as information about the secret, not the secret itself
_METADATA_WORDS = _split_words(
    "count dir directory enabled endpoint env expires expiry field file filename folder format label len length limit "
    "method mode name path policy prompt required size ttl type uri url var variable"
)


class _AssignmentPattern:
    """A syntax that assigns a value to a name.

    Args:
        head: Pattern of the ``name`` and of ``is``, the text between name and value.
        value: Pattern of the ``value`` after it.
    """

    def __init__(self, head: str, value: str) -> None:
        self._head = re.compile(head)
        self._value = re.compile(value, re.DOTALL)

    def find_secrets(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each secret, and start and end of its value, without overlaps."""
        end = 0
        for head in self._head.finditer(text):
            start = head.end("is")
            if start < end or not is_secret_name(head["name"]):
                continue
            if match := self._value.match(text, start):
                end = match.end("value")
                yield head["name"].lstrip("-"), match.start("value"), end


# the kind of secret, markers (in lower case) of which a text must contain one to be searched, and the pattern
_SECRET_PATTERNS = tuple(
    (kind, signs.split(), re.compile(form, re.DOTALL))
    for kind, signs, form in (
        (
            "private key",
            "-----begin",
            r"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z -]*.*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z -]*|\Z)",
        ),
        ("web token", "eyj", r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*"),
        ("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[A-Za-z0-9]{16,}"),
        ("GitHub token", "github_pat_", r"\bgithub_pat_\w{20,}"),
        ("GitLab token", "gl", r"\bgl(?:pat|dt|rt|ptt|cbt|oas|soat|ft|imt|agent)-[\w-]{16,}"),
        ("Hugging Face token", "hf_ api_org_", r"\b(?:hf|api_org)_[A-Za-z0-9]{24,}"),
        ("API key", "sk-", r"\bsk-(?:(?:proj|svcacct|admin|ant|or|live|test)-[\w-]{16,}|[A-Za-z0-9]{20,})"),
        ("API key", "_live_ _test_ whsec_", r"\b(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}"),
        ("API key", "dapi r8_ dop_v1_", r"\b(?:dapi|r8_|dop_v1_)[A-Za-z0-9]{32,}"),
        ("AWS key", "akia asia abia acca", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
        ("Slack token", "xox xapp-", r"\bxox[a-z](?:\.xox[a-z])?-[\w-]{10,}|\bxapp-\d-[\w-]{10,}"),
        ("webhook", "hooks", r"(?<=hooks\.slack\.com/services/)[\w/]{20,}|(?<=/api/webhooks/)\d+/[\w-]{20,}"),
        ("Google key", "aiza ya29. gocspx-", r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}"),
        ("registry token", "pypi- npm_ dckr_", r"\bpypi-[\w-]{40,}|\bnpm_[A-Za-z0-9]{36}|\bdckr_pat_[\w-]{20,}"),
        ("bot token", ":aa", r"\b\d{8,10}:AA[\w-]{33}\b"),
        ("signature", "sig= signature=", r"(?i)(?<=[?&])(?:sig|(?:x-(?:amz|goog)-)?signature)=[^\s&'\"]+"),
        ("signature", "credential= -token=", r"(?i)(?<=[?&])x-(?:amz|goog)-(?:credential|security-token)=[^\s&'\"]+"),
        ("authorization", "bearer ", r"(?i)(?<=\bbearer )(?=\S*\d)[\w.~+/=-]{8,}"),
        ("authorization", "authorization: ", r"(?i)(?<=\bauthorization: )(?:(?:basic|token|bearer) )?[\w.~+/=-]{6,}"),
    )
)
# every secret name contains one of these
_SECRET_NAME_STEMS = _split_words("auth bearer cookie cred jwt key otp pass pat pwd secret sessid sessionid token")
# credentials before the host of a URL: a password, or on the web any user name, as reading needs none
_URL_PASSWORD = re.compile(
    r"(?<=://)[^\s/?#@:\['\"<>]*:(?!\d{1,5}/)(?P<password>[^\s/?#'\"<>]*(?=@)|[^\s'\"<>]{0,256}(?=@))"
)
_URL_USER = re.compile(r"(?i)(?:(?<=http://)|(?<=https://))[^\s/?#@'\"<>]+(?=@)")
# the login in a whole text that is the address of a catalog, also without a scheme; a folder's name may have an "@"
_ADDRESS_LOGIN = re.compile(r"(?is)\A(?!file:)((?:[a-z][a-z0-9+.-]*://)?).+@|\A(file://)[^/]+@")

# a text with a secret contains one of these, in lower case; "@" is the marker of a login
_SECRET_MARKERS = tuple(
    sorted({*(sign for _, signs, _ in _SECRET_PATTERNS for sign in signs), *_SECRET_NAME_STEMS, "@"})
)

# a name and the text between it and its value; only the name is consumed, as the text after it may be the next name
_NAME_REGEX = r"(?<![\w.-])(?P<name>-{0,2}[A-Za-z_][\w.-]*)"
_OPERATOR_REGEX = (
    r"(?=(?P<is>(?:\\?[\"'])?\]?\s*(?::\s*[\w.\[\], |]{1,60}=|:=|[=!]?=|=>|:)\s*[rbfuRBFU]{0,2}(?=\\?[\"'])))"
)
_QUOTED_VALUE_REGEX = r"(?P<quote>\"\"\"|'''|\\?[\"'])(?P<value>(?:\\.|(?!(?P=quote)).)+?)(?P=quote)"
_HEADER_NAME_REGEX = (
    r"(?:password|passwd|(?:client )?secret|api[-_ ]?key|x-[\w-]*(?:key|token)|authorization|(?:set-)?cookie)"
)
_QUOTED_ASSIGNMENT = _AssignmentPattern(_NAME_REGEX + _OPERATOR_REGEX, _QUOTED_VALUE_REGEX)
_UNQUOTED_ASSIGNMENT = _AssignmentPattern(_NAME_REGEX + r"(?=(?P<is>=))", r"(?P<value>[^\s&;'\"]+)")
_MAPPING_OVERRIDE = re.compile(r"[+~]{0,2}[\w./@:-]+=[^'\"]*?\{")
_MAPPING_ENTRY = _AssignmentPattern(r"(?<=[{,\s])(?P<name>[\w.-]+)(?P<is>:\s*)", r"(?P<value>[^\s'\"{}\[\],][^{},]*)")
_HEADER_ASSIGNMENT = _AssignmentPattern(
    rf"(?i)(?<![\w.-])(?P<name>{_HEADER_NAME_REGEX})(?P<is>:[ \t]+)", r"(?P<value>[^\s'\"]+)"
)
_OPTION_ASSIGNMENT = _AssignmentPattern(
    r"(?<![\w.-])--?(?P<name>[A-Za-z][\w-]*)(?P<is>[ =])", r"(?P<value>(?![A-Z_]+\b)[^\s'\"`-][^\s'\"`]*)"
)
_LINE_START_REGEX = r"(?m)^[+ -]?[ \t]*(?:-[ \t]+|export[ \t]+|ENV[ \t]+)?"
_SETTING_ASSIGNMENT = _AssignmentPattern(
    rf"{_LINE_START_REGEX}(?P<name>[\w.-]+)(?P<is>[ \t]*[:=][ \t]*)", r"(?P<value>[^\s'\"#\[{|>][^\n]*)"
)
_EXPORT_ASSIGNMENT = _AssignmentPattern(
    rf"{_LINE_START_REGEX}(?P<name>[A-Z][A-Z0-9_]*)(?P<is>=)", r"(?P<value>(?=\S*\d)[\w+/=~-]{8,})(?!\S)"
)

_PLACEHOLDER = re.compile(
    r"(?i).{0,3}|[x*.\s-]+|<.*>|\[.*\]|[\\\"']*\$[\w{(].*|.*\{.*\}.*|%\(\w+\)s|%\w+%|your[-_ ].*|none|null|true|false|"
    r"!\w.*|tok(?:en)?|pass(?:word)?|secret",
    re.DOTALL,
)
_SETTINGS_SUFFIXES = _split_words(".bash .cfg .conf .env .envrc .ini .json .properties .sh .toml .yaml .yml .zsh")
_KEY_FILE_SUFFIXES = _split_words(".jks .kdbx .key .keystore .p12 .pem .pfx .ppk")
_CREDENTIAL_FILES = _split_words(
    ".dockercfg .git-credentials .htpasswd .netrc .pgpass .pypirc _netrc credentials credentials.json id_dsa id_ecdsa "
    "id_ed25519 id_rsa"
)


def is_secret_name(name: str) -> bool:
    """Whether a name marks its value as a secret: ``HF_TOKEN``, ``apiKey``; not ``tokenizer``, ``max_tokens``.

    Args:
        name: An environment variable, a configuration key, or an option, in any case style.
    """
    words = [word.lower() for word in _WORD_PATTERN.findall(name)]
    if not words or words[-1] in _METADATA_WORDS:
        return False
    pairs = zip(["", *words], words, strict=False)
    return (
        any(word in _SECRET_WORDS or _SECRET_SUFFIX.search(word) for word in words)
        or any(
            before in _SECRET_PAIRS.get(word.removesuffix("s") if word == "keys" else word, ())
            for before, word in pairs
        )
        or (words[-1] == "token" and not _MODEL_TOKEN_WORDS.intersection(words[-2:-1]))
        or words[-1] == "auth"
        or (words[-1] == "pwd" and len(words) > 1)
    )


def is_secret_file(path: str) -> bool:
    """Whether files of this name usually hold secrets: ``.env``, ``id_rsa``, ``server.pem``."""
    name = PurePosixPath(path).name.lower()
    if name.startswith(".env"):
        return name == ".env" or (name.startswith(".env.") and not name.endswith((".example", ".sample", ".template")))
    return name in _CREDENTIAL_FILES or PurePosixPath(name).suffix in _KEY_FILE_SUFFIXES


def redact(value: JsonValue) -> JsonValue:
    """Replace the secrets in a value by ``[redacted: <kind>]``.

    Args:
        value: A JSON value: an environment, a configuration, an argument list.

    Returns:
        The value with replacements for each string or number under a secret's name, for the item after an option of
        such a name in a list, and for text with a secret's form.
    """
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {
            redact_text(name): _mask_value(name, part) if is_secret_name(name) else redact(part)
            for name, part in value.items()
        }
    return _redact_list(value) if isinstance(value, list) else value


def _mask_value(name: str, value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {redact_text(key): _mask_value(name, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_mask_value(name, part) for part in value]
    return value if value in (None, "") or isinstance(value, bool) else _redaction_mark(name)


def _redact_list(values: Sequence[JsonValue]) -> list[JsonValue]:
    """Redact a list, which may be a command line: ``--password x``, ``--api-key=x``."""
    redacted: list[JsonValue] = []
    option = ""
    for value in values:
        if option and isinstance(value, str) and not value.startswith("--"):
            redacted.append(_redaction_mark(option))
            option = ""
            continue
        name, equals, _ = value.partition("=") if isinstance(value, str) else ("", "", "")
        is_option = name.startswith("-") and is_secret_name(name)
        option = name.lstrip("-") if is_option and not equals else ""
        redacted.append(f"{name}={_redaction_mark(name.lstrip('-'))}" if is_option and equals else _redact_item(value))
    return redacted


def _redact_item(value: JsonValue) -> JsonValue:
    """Redact an item of a list, which may be a Hydra override with a mapping: ``login={token: x}``."""
    if isinstance(value, str) and _MAPPING_OVERRIDE.match(value) and _can_contain_secret_name(value):
        value = _redact_assignments(value, _MAPPING_ENTRY)
    return redact(value)


def redact_text(text: str) -> str:
    """Replace the secrets in a text: known tokens, passwords in URLs, ``api_key=…``, ``"token": "…"``."""
    if not _can_contain_secret(text):
        return text
    for kind, form in _likely_patterns(text):
        text = form.sub(_redaction_mark(kind), text)
    text = redact_url_logins(text)
    for assignment in (
        (_QUOTED_ASSIGNMENT, _UNQUOTED_ASSIGNMENT, _HEADER_ASSIGNMENT) if _can_contain_secret_name(text) else ()
    ):
        text = _redact_assignments(text, assignment)
    return text


def redact_url_logins(text: str) -> str:
    """Replace the logins of the URLs in a text: passwords, and on the web user names."""
    return _URL_USER.sub(_redaction_mark("login"), _URL_PASSWORD.sub(_redaction_mark("login"), text))


def redact_address(address: str) -> str:
    """Replace the login in the address of a catalog, also in one without a scheme, and other secrets in it."""
    return redact_text(_ADDRESS_LOGIN.sub(rf"\1\2{_redaction_mark('login')}@", address))


def _can_contain_secret(text: str) -> bool:
    small = text.lower()
    for sign in _SECRET_MARKERS:  # noqa: SIM110 - any() takes three times as long, and this runs at each status update
        if sign in small:
            return True
    return False


def _likely_patterns(text: str) -> list[tuple[str, re.Pattern[str]]]:
    # searching a megabyte for a word is a hundred times as fast as for a pattern
    small = text.lower()
    return [(kind, form) for kind, signs, form in _SECRET_PATTERNS if any(sign in small for sign in signs)]


def _can_contain_secret_name(text: str) -> bool:
    small = text.lower()
    return any(stem in small for stem in _SECRET_NAME_STEMS)


def _redact_assignments(text: str, assignment: _AssignmentPattern) -> str:
    parts, end = [], 0
    for name, start, stop in assignment.find_secrets(text):
        if not text.startswith("[redacted", start):
            parts += [text[end:start], _redaction_mark(name)]
            end = stop
    return "".join((*parts, text[end:]))


def _redaction_mark(kind: str) -> str:
    return f"[redacted: {kind}]"


def has_secret(text: str, file: str = "") -> bool:
    """Whether a text, such as a diff, holds a secret: a known token, or a literal under a secret's name.

    Args:
        text: The text of a program or of settings.
        file: The file's name; in YAML, ``.env`` and the like, a literal needs no quotes.
    """
    name = PurePosixPath(file).name.lower()
    is_settings = PurePosixPath(name).suffix in _SETTINGS_SUFFIXES or name.startswith(".env") or name == "dockerfile"
    assignments = (
        (_QUOTED_ASSIGNMENT, _OPTION_ASSIGNMENT, _SETTING_ASSIGNMENT if is_settings else _EXPORT_ASSIGNMENT)
        if _can_contain_secret_name(text)
        else ()
    )
    return (
        any(form.search(text) for _, form in _likely_patterns(text))
        or any(_is_literal(match["password"]) for match in _URL_PASSWORD.finditer(text))
        or any(_is_literal(text[start:stop]) for each in assignments for _, start, stop in each.find_secrets(text))
    )


def _is_literal(value: str) -> bool:
    return not _PLACEHOLDER.fullmatch(value)
