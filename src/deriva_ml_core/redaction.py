"""What a secret looks like, by the name it goes under and by its own form; secrets are never written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["holds_secret", "is_secret_file", "is_secret_name", "redact", "redact_text"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = _words("authorization bearer cookie cookies credential credentials creds jwt otp secret secrets totp")
# also at the end of a longer word, as in PGPASSWORD
_SECRET_ENDS = re.compile(
    r"(?:password|passwd|passphrase|passcode|apikey|accesskey|secretkey|privatekey|signingkey|authtoken|accesstoken|"
    r"apitoken|sessionid|sessid)s?\Z"
)
_SECRET_PAIRS: Mapping[str, frozenset[str]] = {
    "key": _words(
        "access account anthropic api auth aws azure comet consumer deploy encryption gcp hf host license master "
        "neptune openai private secret session shared signing ssh subscription wandb"
    ),
    "pass": _words(
        "admin database db email ftp git http ldap login mail mongo mysql pg postgres proxy redis registry root smtp "
        "ssh sudo user"
    ),
    "pat": _words("ado azure devops docker gh github gitlab"),
    "tokens": _words("access api auth bearer id oauth personal refresh session"),
}
# a language model's own tokens are no secrets
_TOKEN_KINDS = _words(
    "additional audio batch begin boi bos class cls decoder end eoi eos eot first forced image input last left mask "
    "max min next num oov output pad patch per prefix prompt right sep sequence source special speech start stop "
    "suffix target text time unk unknown video vision visual word"
)
# what follows a secret's name where the value is something about it
_ABOUT = _words(
    "count dir directory enabled endpoint env expires expiry field file filename folder format label len length limit "
    "method mode name path policy prompt required size ttl type uri url var variable"
)


class _Assignment:
    """A way to give a name a value.

    Args:
        head: Finds the ``name`` and ``is``, what lies between it and the value.
        value: Finds the ``value`` there.
    """

    def __init__(self, head: str, value: str) -> None:
        self._head = re.compile(head)
        self._value = re.compile(value, re.DOTALL)

    def secrets(self, text: str) -> Iterator[tuple[str, int, int]]:
        """The secrets' names, and from where to where their values are, without overlaps."""
        end = 0
        for head in self._head.finditer(text):
            start = head.end("is")
            if start < end or not is_secret_name(head["name"]):
                continue
            if found := self._value.match(text, start):
                end = found.end("value")
                yield head["name"].lstrip("-"), found.start("value"), end


# the kind of secret, what a text must have in it (in small letters) to be worth a search, and the secret's form
_FORMS = tuple(
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
# what every secret name has in it
_STEMS = _words("auth bearer cookie cred jwt key otp pass pat pwd secret sessid sessionid token")
# what stands before the host in a URL: with a password, or on the web, where no login name is needed to read
_LOGIN = re.compile(r"(?<=://)[^\s/?#@:\['\"<>]*:(?!\d{1,5}/)(?P<password>[^\s/?#'\"<>]*(?=@)|[^\s'\"<>]{0,256}(?=@))")
_USER = re.compile(r"(?i)(?:(?<=http://)|(?<=https://))[^\s/?#@'\"<>]+(?=@)")

# what a text has in it, in small letters, that has a secret of any kind; the last is that of a login
_SIGNS = tuple(sorted({*(sign for _, signs, _ in _FORMS for sign in signs), *_STEMS, "@"}))

# a name and what lies between it and a value; only the name is consumed, as what follows it may be the next name
_NAME = r"(?<![\w.-])(?P<name>-{0,2}[A-Za-z_][\w.-]*)"
_IS = r"(?=(?P<is>(?:\\?[\"'])?\]?\s*(?::\s*[\w.\[\], |]{1,60}=|:=|[=!]?=|=>|:)\s*[rbfuRBFU]{0,2}(?=\\?[\"'])))"
_QUOTED = r"(?P<quote>\"\"\"|'''|\\?[\"'])(?P<value>(?:\\.|(?!(?P=quote)).)+?)(?P=quote)"
_HEADER = r"(?:password|passwd|(?:client )?secret|api[-_ ]?key|x-[\w-]*(?:key|token)|authorization|(?:set-)?cookie)"
_IN_QUOTES = _Assignment(_NAME + _IS, _QUOTED)
_UNQUOTED = _Assignment(_NAME + r"(?=(?P<is>=))", r"(?P<value>[^\s&;'\"]+)")
_MAPPING = re.compile(r"[+~]{0,2}[\w./@:-]+=[^'\"]*?\{")
_IN_MAPPING = _Assignment(r"(?<=[{,\s])(?P<name>[\w.-]+)(?P<is>:\s*)", r"(?P<value>[^\s'\"{}\[\],][^{},]*)")
_AS_HEADER = _Assignment(rf"(?i)(?<![\w.-])(?P<name>{_HEADER})(?P<is>:[ \t]+)", r"(?P<value>[^\s'\"]+)")
_AS_OPTION = _Assignment(
    r"(?<![\w.-])--?(?P<name>[A-Za-z][\w-]*)(?P<is>[ =])", r"(?P<value>(?![A-Z_]+\b)[^\s'\"`-][^\s'\"`]*)"
)
_LINE = r"(?m)^[+ -]?[ \t]*(?:-[ \t]+|export[ \t]+|ENV[ \t]+)?"
_AS_SETTING = _Assignment(rf"{_LINE}(?P<name>[\w.-]+)(?P<is>[ \t]*[:=][ \t]*)", r"(?P<value>[^\s'\"#\[{|>][^\n]*)")
_AS_EXPORT = _Assignment(rf"{_LINE}(?P<name>[A-Z][A-Z0-9_]*)(?P<is>=)", r"(?P<value>(?=\S*\d)[\w+/=~-]{8,})(?!\S)")

_NO_LITERAL = re.compile(
    r"(?i).{0,3}|[x*.\s-]+|<.*>|\[.*\]|[\\\"']*\$[\w{(].*|.*\{.*\}.*|%\(\w+\)s|%\w+%|your[-_ ].*|none|null|true|false|"
    r"!\w.*|tok(?:en)?|pass(?:word)?|secret",
    re.DOTALL,
)
_SETTINGS = _words(".bash .cfg .conf .env .envrc .ini .json .properties .sh .toml .yaml .yml .zsh")
_KEY_FILES = _words(".jks .kdbx .key .keystore .p12 .pem .pfx .ppk")
_LOGIN_FILES = _words(
    ".dockercfg .git-credentials .htpasswd .netrc .pgpass .pypirc _netrc credentials credentials.json id_dsa id_ecdsa "
    "id_ed25519 id_rsa"
)


def is_secret_name(name: str) -> bool:
    """Whether the value under this name is a secret: ``HF_TOKEN``, ``apiKey``; not ``tokenizer``, ``max_tokens``.

    Args:
        name: An environment variable, a key of a configuration, or an option, in any spelling of its words.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT:
        return False
    pairs = zip(["", *words], words, strict=False)
    return (
        any(word in _SECRET_WORDS or _SECRET_ENDS.search(word) for word in words)
        or any(
            before in _SECRET_PAIRS.get(word.removesuffix("s") if word == "keys" else word, ())
            for before, word in pairs
        )
        or (words[-1] == "token" and not _TOKEN_KINDS.intersection(words[-2:-1]))
        or words[-1] == "auth"
        or (words[-1] == "pwd" and len(words) > 1)
    )


def is_secret_file(path: str) -> bool:
    """Whether a file of this name is there to hold secrets: ``.env``, ``id_rsa``, ``server.pem``."""
    name = PurePosixPath(path).name.lower()
    if name.startswith(".env"):
        return name == ".env" or (name.startswith(".env.") and not name.endswith((".example", ".sample", ".template")))
    return name in _LOGIN_FILES or PurePosixPath(name).suffix in _KEY_FILES


def redact(value: JsonValue) -> JsonValue:
    """Replace the secrets in a value by marks that say what was there.

    Args:
        value: What JSON can hold: an environment, a configuration, an argument list.

    Returns:
        The same value with ``[redacted: …]`` in place of each string or number under a secret's name, of what follows
        an option of such a name in a list, and of what has a secret's form in any text.
    """
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {
            redact_text(name): _hidden(name, part) if is_secret_name(name) else redact(part)
            for name, part in value.items()
        }
    return _redact_list(value) if isinstance(value, list) else value


def _hidden(name: str, value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {redact_text(key): _hidden(name, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_hidden(name, part) for part in value]
    return value if value in (None, "") or isinstance(value, bool) else _mark(name)


def _redact_list(values: Sequence[JsonValue]) -> list[JsonValue]:
    """Redact a list, which may be a command line: ``--password x``, ``--api-key=x``."""
    redacted: list[JsonValue] = []
    option = ""
    for value in values:
        if option and isinstance(value, str) and not value.startswith("--"):
            redacted.append(_mark(option))
            option = ""
            continue
        name, equals, _ = value.partition("=") if isinstance(value, str) else ("", "", "")
        is_option = name.startswith("-") and is_secret_name(name)
        option = name.lstrip("-") if is_option and not equals else ""
        redacted.append(f"{name}={_mark(name.lstrip('-'))}" if is_option and equals else _redact_word(value))
    return redacted


def _redact_word(value: JsonValue) -> JsonValue:
    """Redact a part of a list, which may be an override of hydra's with a mapping: ``login={token: x}``."""
    if isinstance(value, str) and _MAPPING.match(value) and _may_name_secret(value):
        value = _without_values(value, _IN_MAPPING)
    return redact(value)


def redact_text(text: str) -> str:
    """Replace what has a secret's form in a text: a known token, a URL's password, ``api_key=…``, ``"token": "…"``."""
    if not _may_hold_secret(text):
        return text
    for kind, form in _likely_forms(text):
        text = form.sub(_mark(kind), text)
    text = _USER.sub(_mark("login"), _LOGIN.sub(_mark("login"), text))
    for assignment in (_IN_QUOTES, _UNQUOTED, _AS_HEADER) if _may_name_secret(text) else ():
        text = _without_values(text, assignment)
    return text


def _may_hold_secret(text: str) -> bool:
    small = text.lower()
    for sign in _SIGNS:  # noqa: SIM110 - any() takes thrice the time, at each status of a training
        if sign in small:
            return True
    return False


def _likely_forms(text: str) -> list[tuple[str, re.Pattern[str]]]:
    # searching a megabyte for a word is a hundred times as fast as for a form
    small = text.lower()
    return [(kind, form) for kind, signs, form in _FORMS if any(sign in small for sign in signs)]


def _may_name_secret(text: str) -> bool:
    small = text.lower()
    return any(stem in small for stem in _STEMS)


def _without_values(text: str, assignment: _Assignment) -> str:
    parts, end = [], 0
    for name, start, stop in assignment.secrets(text):
        if not text.startswith("[redacted", start):
            parts += [text[end:start], _mark(name)]
            end = stop
    return "".join((*parts, text[end:]))


def _mark(what: str) -> str:
    return f"[redacted: {what}]"


def holds_secret(text: str, file: str = "") -> bool:
    """Whether a text, such as a file's change, holds a secret: a known token, or a literal under a secret's name.

    Args:
        text: The text, of a program or of settings.
        file: The file's name: in YAML, ``.env`` and the like a literal needs no quotes.
    """
    name = PurePosixPath(file).name.lower()
    is_settings = PurePosixPath(name).suffix in _SETTINGS or name.startswith(".env") or name == "dockerfile"
    ways = (_IN_QUOTES, _AS_OPTION, _AS_SETTING if is_settings else _AS_EXPORT) if _may_name_secret(text) else ()
    return (
        any(form.search(text) for _, form in _likely_forms(text))
        or any(_is_literal(found["password"]) for found in _LOGIN.finditer(text))
        or any(_is_literal(text[start:stop]) for way in ways for _, start, stop in way.secrets(text))
    )


def _is_literal(value: str) -> bool:
    return not _NO_LITERAL.fullmatch(value)
