"""Detect secrets in texts, by their name and their form.

A text is searched for markers, such as ``token`` or ``://``, and patterns are matched only where a marker is. So the
time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "Secret",
    "Syntax",
    "find_command_passwords",
    "find_secrets",
    "find_url_logins",
    "is_literal",
    "is_plain_value",
    "is_random",
    "is_secret_name",
    "is_tokens_name",
    "mark_credentials",
    "name_words",
]

Syntax: TypeAlias = Literal["text", "code", "settings"]
"""What a text is: in text and settings, a value needs no quotes; in a program, words are variables."""


class Secret(NamedTuple):
    """A secret in a text.

    Args:
        kind: The name of the form, or the name under which the secret is.
        start: The index of its first character.
        end: The index after its last character.
        is_known: Whether its form alone identifies it, whatever its value.
    """

    kind: str
    start: int
    end: int
    is_known: bool = False


def _split_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD_PATTERN = re.compile(r"[srbSRB][23](?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_WORD_REGEXS = _split_words(
    "authorization bearer cookie cookies credential credentials creds jwt keypass otp secret secrets storepass totp"
)
# also at the end of a longer word, as in PGPASSWORD
_SECRET_SUFFIX = re.compile(
    r"(?:password|passwd|passphrase|passcode|apikey|accesskey|secretkey|privatekey|signingkey|authtoken|accesstoken|"
    r"apitoken|sessionid|sessid)s?\Z"
)
_PASSWORD_OWNERS = _split_words(
    "account admin api app client database db email ftp git http imap jdbc key keystore ldap login mail mongo mysql "
    "odbc oracle pg postgres proxy redis registry root server service sftp smtp sql ssh store sudo user vault web "
    "webdav"
)
_SECRET_PAIRS: Mapping[str, frozenset[str]] = {
    "key": _split_words(
        "access account aes anthropic api app application auth aws azure cohere comet consumer databricks datadog "
        "decryption deploy encryption gcp gemini github gitlab groq hf hmac host huggingface jwt kaggle langsmith "
        "license master minio mistral neptune openai oss pinecone private replicate rsa s3 sas secret sendgrid session "
        "shared signing ssh storage stripe subscription twilio wandb webhook"
    ),
    "pass": _PASSWORD_OWNERS,
    "pw": _PASSWORD_OWNERS,
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
    "count dir directory enabled endpoint env expires expiry field file filename folder format label len length level "
    "limit method mode name path policy prompt required size strength ttl type uri url var variable"
)
_PASSWORD_WORDS = re.compile(r"pass|pwd?|.*(?:password|passwd|passphrase|passcode)s?")
# the variables of the shell that hold its folder
_FOLDER_VARIABLES = _split_words("PWD OLDPWD")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a name marks its value as a secret: ``HF_TOKEN``, ``apiKey``; not ``tokenizer``, ``max_tokens``.

    Args:
        name: An environment variable, a configuration key, or an option, in any case style.
    """
    words = name_words(name)
    if not words or words[-1] in _METADATA_WORDS or name in _FOLDER_VARIABLES:
        return False
    if name_words(name.rpartition(".")[2]) in (["pass"], ["pw"]):
        return True
    pairs = zip(["", *words], words, strict=False)
    return (
        any(word in _WORD_REGEXS or _SECRET_SUFFIX.search(word) for word in words)
        or any(
            before in _SECRET_PAIRS.get(word.removesuffix("s") if word == "keys" else word, ())
            for before, word in pairs
        )
        or (words[-1] == "token" and not _MODEL_TOKEN_WORDS.intersection(words[-2:-1]))
        or words[-1] in ("auth", "pwd")
    )


def name_words(name: str) -> list[str]:
    """Return the words of a name in any case style, in lower case, without numbers."""
    return [word.lower() for word in _WORD_PATTERN.findall(name)]


@lru_cache(maxsize=4096)
def is_tokens_name(name: str) -> bool:
    """Whether a name can stand for the tokens of services or of a text: ``tokens``, not ``stop_tokens``."""
    words = name_words(name)
    return words[-1:] == ["tokens"] and not _MODEL_TOKEN_WORDS.intersection(words[-2:-1]) and not is_secret_name(name)


# a value that refers to the secret, such as ${HF_TOKEN}, or stands for it
_REFERENCE = re.compile(
    r"\[redacted.*|\.{3}\W*|…\W*|"
    r"<[A-Za-z/_ -]*>?|\$\{[\w.:-]*\}|\$\([^)]*\)?|\$[A-Z_][A-Z0-9_]+|\{\{.*\}\}|\{[A-Za-z_.]+\}|%\(\w+\)s"
)
_PLACEHOLDER = re.compile(
    r"(?i).{0,3}|[x*.\s-]+|<.*>?|\[.*\]|[\\\"']*\$[\w{(].*|.*\{.*\}.*|%\(\w+\)s|%\w+%|your[-_ ].*|none|null|true|"
    r"false|!\w.*|tok(?:en)?|pass(?:word)?|secret|[\w-]+=(?:<.*>|…|\.\.\.)|[\^~<>=]*\d+(?:\.\d+)+",
    re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?[\d_,]*\.?\d+(?:e[+-]?\d+)?\s?[kmbt%]?", re.IGNORECASE)
_PATH = re.compile(
    r"(?:[~.]{0,2}/|[A-Za-z]:\\|[a-z0-9]+://).*|[\w.-]+(?:/[\w.= -]+)+/?|[\w-]+\.[a-z]\w{1,4}", re.DOTALL
)
_CREDENTIAL = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[\w+/=.~:!@#$%^&*-]{6,512}")
_RANDOM = re.compile(r"[\w+/=.~-]{16,512}")
_CHARACTER_CLASSES = re.compile(r"[a-z]+|[A-Z]+|\d+")
_BLANK = re.compile(r"\s")
_NOISE = re.compile(r"[!#$()*<>^`{|}~@;+?]")
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[,)]*|.*[(\[{].*", re.DOTALL)
_ARGUMENT = re.compile(r"(?P<name>[A-Za-z_][\w.]*)[,)]+")
# values of an option or a check, such as "pass: yes" and "auth: basic"
_CHOICES = _split_words(
    "all any auto basic bearer default digest disabled enabled fail false full hidden kerberos manual no none null "
    "oauth oauth2 off ok on open optional pass passed passthrough random read required skip true write yes"
)
# words after a name in a sentence, as in "password: required" and "pass --token to log in"
_SENTENCE_WORDS = _CHOICES | _split_words(
    "a an and any are argument as ask asked at be before but by bytes can comes database default defaults empty "
    "enter expired field fields flag float for from getpass has if in incorrect instead int into invalid is it "
    "its may missing must my never not of on option or our page parameter please policy same see set should so "
    "str string text that the their then this to under unknown use used value was we when where whether which "
    "will with without wrong you your"
)


def is_random(text: str) -> bool:
    """Whether a word looks random: at least 16 characters that change often between letters and digits."""
    return (
        _RANDOM.fullmatch(text) is not None
        and any(character.isdigit() for character in text)
        and len(_CHARACTER_CLASSES.findall(text)) >= max(6, len(text) / 5)
    )


def _is_credential(text: str) -> bool:
    return _CREDENTIAL.fullmatch(text) is not None and not _NUMBER.fullmatch(text)


def is_plain_value(name: str, value: str) -> bool:
    """Whether a value under a secret's name is none: a reference, or in ``pass: 2`` a number, in ``pwd`` a folder."""
    if _REFERENCE.fullmatch(value):
        return True
    words = name_words(name) or [""]
    if words[-1] in ("pass", "pw", "pwd"):
        number = _NUMBER.fullmatch(value) and (len(value) <= 3 or not value.isdigit())
        return bool(number) or value.lower() in _CHOICES or (words[-1] == "pwd" and bool(_PATH.fullmatch(value)))
    if words[-1] in ("key", "keys"):
        return _PATH.fullmatch(value) is not None and not is_random(value)
    return words[-1] in ("auth", "authorization") and value.lower() in _CHOICES


def is_literal(value: str) -> bool:
    """Whether a value in a file is no placeholder, such as ``<your token>``, and no expression, such as ``{token}``."""
    return not _PLACEHOLDER.fullmatch(value)


_GAP = r"[\s+-]{1,40}"  # between words that may be in several lines of a diff
# the kind of secret, its markers in lower case, and the pattern, which starts at a marker
_KNOWN_FORMS = tuple(
    (kind, tuple(markers.split("|")), re.compile(form, re.DOTALL))
    for kind, markers, form in (
        (
            "private key",
            "-----begin",
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z -]*.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY[A-Z -]*|\Z)",
        ),
        ("web token", "eyj", r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*"),
        ("GitHub token", "ghp_|gho_|ghu_|ghs_|ghr_", r"\bgh[pousr]_[A-Za-z0-9]{16,}"),
        ("GitHub token", "github_pat_", r"\bgithub_pat_\w{20,}"),
        (
            "GitLab token",
            "glpat-|gldt-|glrt-|glptt-|glcbt-|gloas-|glsoat-|glft-|glimt-|glagent-",
            r"\bgl(?:pat|dt|rt|ptt|cbt|oas|soat|ft|imt|agent)-[\w-]{16,}",
        ),
        ("Hugging Face token", "hf_|api_org_", r"\b(?:hf|api_org)_[A-Za-z0-9]{24,}"),
        ("API key", "sk-", r"\bsk-(?:(?:proj|svcacct|admin|ant|or|live|test)-[\w-]{16,}|[A-Za-z0-9]{20,})"),
        ("API key", "sk_live_|sk_test_|rk_live_|rk_test_", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
        ("API key", "whsec_|dapi|r8_|dop_v1_", r"\b(?:whsec_[A-Za-z0-9]{16,}|(?:dapi|r8_|dop_v1_)[A-Za-z0-9]{32,})"),
        ("AWS key", "akia|asia|abia|acca", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
        ("Slack token", "xox|xapp-", r"\bxox[a-z](?:\.xox[a-z])?-[\w-]{10,}|\bxapp-\d-[\w-]{10,}"),
        ("webhook", "hooks.slack.com/services/", r"hooks\.slack\.com/services/(?P<value>[\w/]{20,})"),
        ("webhook", "/api/webhooks/", r"/api/webhooks/(?P<value>\d+/[\w-]{20,})"),
        ("Google key", "aiza|ya29.|gocspx-", r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}"),
        ("registry token", "pypi-|npm_|dckr_", r"\bpypi-[\w-]{40,}|\bnpm_[A-Za-z0-9]{36}|\bdckr_pat_[\w-]{20,}"),
        ("bot token", ":aa", r"(?<=\d{8}):AA[\w-]{33}\b"),
        ("signature", "sig=", r"(?i)(?<=[?&])sig=(?P<value>[\w%+/=.~-]{16,})"),
        (
            "signature",
            "signature=|credential=|security-token=",
            r"(?i)(?:(?<=x-amz-)|(?<=x-goog-)|(?<=\?)|(?<=&))(?:signature|credential|security-token)="
            r"(?P<value>[^\s&'\"]+)",
        ),
        ("authorization", "bearer ", r"(?i)\bbearer (?P<value>(?=\S*\d)[\w.~+/=-]{8,})"),
        (
            "authorization",
            "authorization: ",
            r"(?i)\bauthorization: (?P<value>(?:basic|token|bearer) [\w.~+/=-]{6,}|(?=\S*\d)[\w.~+/=-]{6,})",
        ),
        ("channel token", "conda", r"conda[\w.:/-]{0,100}?/t/(?P<value>(?=[\w-]*\d)[\w-]{10,})/"),
        (
            "Kaggle key",
            "username",
            r"username[\"']\s*:\s*[\"'][^\"'\n]{1,100}[\"'],[\s+-]{0,40}[\"']key[\"']\s*:\s*[\"'](?P<value>[0-9a-f]{32})\b",
        ),
        ("client key", "client-key-data", r"client-key-data[\"']?\s*:\s*[\"']?(?P<value>[\w+/=]{20,})"),
        (
            "password",
            "machine",
            rf"\bmachine{_GAP}(?P<host>[^\s,]{{1,253}})(?:{_GAP}(?:login|account){_GAP}[^\s,]{{1,253}}){{0,2}}"
            rf"{_GAP}password{_GAP}(?P<value>[^\s'\"]{{1,512}})",
        ),
        (
            "password",
            "default",
            rf"\bdefault{_GAP}login{_GAP}[^\s,]{{1,253}}{_GAP}password{_GAP}(?P<value>\S{{1,512}})",
        ),
    )
)


def _positions(small: str, marker: str) -> Iterator[int]:
    position = small.find(marker)
    while position >= 0:
        yield position
        position = small.find(marker, position + 1)


def _find_known_forms(text: str, small: str) -> Iterator[Secret]:
    for kind, markers, form in _KNOWN_FORMS:
        end = 0
        for marker in markers:
            for position in _positions(small, marker):
                if position >= end and (match := form.match(text, position)) and _is_netrc(match):
                    start, end = match.span("value" if "value" in form.groupindex else 0)
                    yield Secret(kind, start, end, is_known=True)


def _is_netrc(match: re.Match[str]) -> bool:
    """Whether the words "machine … password …", if a match has them, are no sentence."""
    parts = match.groupdict()
    return "host" not in parts or "." in parts["host"] or any(character.isdigit() for character in parts["value"])


# credentials before the host of a URL: a password, or on the web any user name, as reading needs none
_URL_PASSWORD = re.compile(
    r"://[^\s/?#@:\['\"<>]{0,256}:(?!\d{1,5}/)(?P<value>[^\s/?#'\"<>]{0,256}(?=@)|[^\s'\"<>]{0,256}(?=@))"
)
_URL_USER = re.compile(r"(?i)(?:(?<=http)|(?<=https))://(?P<value>[^\s/?#@'\"<>]{1,512})(?=@)")


def find_url_logins(text: str, *, with_users: bool = True) -> Iterator[Secret]:
    """Yield the passwords in the URLs of a text.

    Args:
        text: The text.
        with_users: Whether to yield user names of web addresses as well; many services accept a token as one.
    """
    for position in _positions(text, "://"):
        match = _URL_PASSWORD.match(text, position)
        if not match and with_users:
            match = _URL_USER.match(text, position)
        if match and match["value"]:
            yield Secret("login", *match.span("value"))


_END_OF_WORD = r"[\s\"',=\0]"
_WORD_REGEX = r"[\"']?(?P<value>[^\s'\"`,\0]+)"
# programs, the option with the password, whether the value can be attached to it, and whether it can follow
_PASSWORD_OPTIONS = (
    (("mysql", "mariadb"), r"[\w-]*", "-p", True, False),
    (("7z", "rar", "unrar"), "[a-z]?", "-p", True, False),
    (("sshpass",), "", "-p", True, True),
    (("zip", "unzip", "zipcloak"), "", "-P", False, True),
    (("redis-cli",), "", "-a", False, True),
    (("mongo",), r"\w*", "-p", False, True),
    (("ldap",), r"\w+", "-w", False, True),
    (
        ("docker", "podman", "skopeo", "buildah", "helm", "oras", "nerdctl"),
        r"[\s\"',\0]+(?:\w+\s+)?login",
        "-p",
        False,
        True,
    ),
)
_COMMANDS = tuple(
    (
        programs,
        re.compile(
            rf"(?:{'|'.join(programs)}){rest}(?![\w-])[^\n|;&`]{{0,300}}?[\s\"',\0]{option}"
            rf"(?:{'|'.join(([''] if attached else []) + ([_END_OF_WORD + '+'] if follows else []))}){_WORD_REGEX}"
        ),
    )
    for programs, rest, option, attached, follows in _PASSWORD_OPTIONS
)
_USER_OPTION = re.compile(
    rf"(?:-u|-U|--user|--proxy-user)(?P<gap>{_END_OF_WORD}*)[\"']?(?P<user>[^\s'\"`:/@,=\0-][^\s'\"`:/@,\0]*):"
    r"(?P<value>(?!//)[^\s'\"`,\0]+)"
)
_WEB_CLIENT = re.compile(r"\b(?:curl|wget|lftp|ftp)(?:\.exe)?[\s\"',\0][^\n|;&`]*\Z")
_CONTAINER_CLIENT = re.compile(r"\b(?:docker|podman|nerdctl)[\s\"',\0][^\n|;&`]*\Z")
_KEY_OPTION = re.compile(rf"-pass(?:in|out)?{_END_OF_WORD}+[\"']?pass:(?P<value>[^\s'\"`,\0]+)")
_OPTION_BEFORE = re.compile(r"(?:\A|[\s\"',\0])--?[A-Za-z][\w-]*[\s\"',=\0]+\Z|[\w\]]=\Z")


def find_command_passwords(text: str) -> Iterator[Secret]:
    """Yield the passwords in commands that name them by a letter: ``mysql -p…``, ``curl -u user:…``.

    Args:
        text: The text; NUL may separate words.
    """
    if "-" not in text:
        return
    small = _lower(text)
    for programs, command in _COMMANDS:
        for position in (position for program in programs for position in _positions(small, program)):
            if _is_command(text, position):
                yield from _accept_password(command.match(text, position))
    for option in ("-u", "-U", "--user", "--proxy-user"):
        for position in _positions(text, option):
            match = _USER_OPTION.match(text, position)
            if match and _is_login(match):
                yield from _accept_password(match)
    for position in _positions(text, "-pass"):
        yield from _accept_password(_KEY_OPTION.match(text, position))


def _is_login(option: re.Match[str]) -> bool:
    """Whether ``-u user:value`` has a password: always for web clients, never a group as for containers."""
    before = option.string[max(0, option.start() - 300) : option.start()]
    if re.search(r"[\w-]\Z", before):  # the end of another option
        return False
    if _WEB_CLIENT.search(before):
        return True
    return bool(option["gap"]) and _is_credential(option["value"]) and not _CONTAINER_CLIENT.search(before)


def _is_command(text: str, position: int) -> bool:
    """Whether the program at a position is called there, and is not the value of an option: ``--db mysql``."""
    before = text[max(0, position - 60) : position]
    return not (before[-1:].isalnum() or before[-1:] in ("-", "_", ".")) and not _OPTION_BEFORE.search(before)


def _accept_password(match: re.Match[str] | None) -> Iterator[Secret]:
    """Yield the value of a match, if it is no reference and no number."""
    if (
        match
        and is_literal(value := match["value"])
        and not _REFERENCE.fullmatch(value)
        and not _NUMBER.fullmatch(value)
    ):
        yield Secret("password", *match.span("value"))


# every secret name contains one of these; "pat" and "pw" only as whole words
_NAME_STEMS = (
    *("auth", "bearer", "cookie", "cred", "jwt", "key", "otp"),
    *("pass", "pat", "pw", "secret", "sessid", "sessionid", "token"),
)
_WHOLE_STEMS = _split_words("pat pw")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_MAX_NAME_LENGTH = 100

_OPERATOR_REGEX = r"(?:\\?[\"'])?\]?[ \t]*(?::[ \t]*[\w.\[\], |]{1,60}=|:=|[=!]?=|=>|:)[ \t]*"
_QUOTED_VALUE = re.compile(
    _OPERATOR_REGEX
    + r"[rbfuRBFU]{0,2}(?P<quote>\"\"\"|'''|\\?[\"'])(?P<value>(?:\\.|(?!(?P=quote))[^\n]){1,20000}?)(?P=quote)",
    re.DOTALL,
)
_LIST_VALUE = re.compile(_OPERATOR_REGEX + r"[\[(](?P<value>[^\[\](){}]{1,4000})[\])]")
_LINES_VALUE = re.compile(r"[\"']?:[ \t]*(?P<value>(?:\n[+ -]?[ \t]*-[ \t]+[^\n]{1,512}){1,100})")
_LIST_ITEM = re.compile(r"[rbfuRBFU]{0,2}(?P<quote>[\"'])(?P<value>[^\"'\n]+)(?P=quote)|(?P<bare>[^\s,\"'-][^\s,\"']*)")
_UNQUOTED_VALUE = re.compile(r"=(?P<value>[^\s&;'\"`]+)")
_OPTION_VALUE = re.compile(
    r"(?:[ =]|[\"'],?\s+(?=[\"']))(?:(?P<quote>\\?[\"'])(?P<quoted>[^\"'\n]{1,512}?)(?P=quote)"
    r"|(?P<value>[^\s'\"`-][^\s'\"`]*))"
)
_SENTENCE_VALUE = re.compile(r"(?:[ \t]?[:=][ \t]+|[ \t]+=[ \t]*)(?P<value>[^\s'\"`]+)")
_HEADER_VALUE = re.compile(r":[ \t]*(?P<value>[^\n'\"`]+)")
_HEADER_NAME = re.compile(r"(?i)x-[\w-]*(?:key|token)|(?:set-)?cookie")
_SETTING_VALUE = re.compile(r"[ \t]*[:=][ \t]*(?P<value>[^\s'\"#\[{|>][^\n]*)")
_EXPORT_VALUE = re.compile(r"=(?P<value>(?=\S*\d)[\w+/=~-]{6,})(?!\S)")
_LINE_VALUE = re.compile(r"[\"']?[ \t]*[:=][ \t]*(?P<value>\S{16,512})[ \t]*(?=\n|\Z)")
_LINE_START = re.compile(
    r"(?:\A|\n)[+ -]?[ \t]*(?:-[ \t]+|(?:!?export|set|ENV|%env|%set_env)[ \t]+|//[^\s=]*:)?[\"']?\Z"
)
_COMMENT = re.compile(r"(?:\A|\n)[^\n\"']*(?:#|//)[^\n\"'=()]*\Z")
_FOLDER_OR_PASSWORD = re.compile(r"(?i)[ \t]*=[ \t]*(?P<value>[^;'\"\n]+)")


class _Name(NamedTuple):
    """A name in a text.

    Args:
        text: The text.
        start: The index of its first character.
        end: The index after its last character.
    """

    text: str
    start: int
    end: int

    @property
    def name(self) -> str:
        return self.text[self.start : self.end]

    @property
    def before(self) -> str:
        """The text before the name, as far as it matters."""
        return self.text[max(0, self.start - 100) : self.start]


def _iter_names(text: str, small: str) -> Iterator[_Name]:
    """Yield the names in a text that contain a secret's stem, in the order of the text."""
    spans = set[tuple[int, int]]()
    for stem in _NAME_STEMS:
        end = 0
        for position in _positions(small, stem):
            if position < end:
                continue
            after = position + len(stem)
            if stem in _WHOLE_STEMS and text[after : after + 1].islower() and not small.startswith("pwd", position):
                continue
            start, end = _expand_name(text, position, after)
            if start < end:
                spans.add((start, end))
    return (_Name(text, *span) for span in sorted(spans))


def _expand_name(text: str, start: int, end: int) -> tuple[int, int]:
    first, last = max(0, start - _MAX_NAME_LENGTH), min(len(text), end + _MAX_NAME_LENGTH)
    while start > first and text[start - 1] in _NAME_CHARACTERS:
        start -= 1
    while end < last and text[end] in _NAME_CHARACTERS:
        end += 1
    while start < end and text[start] in ".-0123456789":  # an option, the end of a sentence
        start += 1
    while end > start and text[end - 1] in ".-":
        end -= 1
    return start, end


def _find_named_values(text: str, small: str, syntax: Syntax) -> Iterator[Secret]:
    finders = {"text": _find_in_text, "code": _find_in_code, "settings": _find_in_settings}
    end = 0
    for name in _iter_names(text, small):
        if name.start < end or text.endswith("[redacted: ", 0, name.start):
            continue
        found: Iterable[Secret] = ()
        if is_tokens_name(name.name):
            found = _find_list(name, syntax)
        elif name.name.lower() == "pwd" or is_secret_name(name.name):
            found = finders[syntax](name)
        elif syntax == "text" and is_secret_name(_longer_name(name)):
            found = _accept(name._replace(start=name.start - 1 - len(_word_before(name))), _SENTENCE_VALUE, _is_named)
        for secret in found:
            yield secret
            end = max(end, secret.end)


def _word_before(name: _Name) -> str:
    """Return the word before a name and a single blank: "API" before "key"."""
    match = re.search(r"(?<![\w.-])[A-Za-z]+(?= \Z)", name.before)
    return match[0] if match else ""


def _longer_name(name: _Name) -> str:
    word = _word_before(name)
    return f"{word} {name.name}" if word else name.name


def _accept(
    name: _Name, form: re.Pattern[str], accepts: Callable[[_Name, str], bool], *groups: str
) -> Iterator[Secret]:
    """Yield the secret after a name, if it has a form and its value is accepted."""
    if match := form.match(name.text, name.end):
        group = next((each for each in groups if match[each]), "value")
        if match[group] and not is_plain_value(name.name, match[group]) and accepts(name, match[group]):
            yield Secret(name.name, *match.span(group))


def _find_in_text(name: _Name) -> Iterator[Secret]:
    if name.name.lower() == "pwd" and _is_connection_string(name):
        yield from _accept(name, _FOLDER_OR_PASSWORD, _is_unquoted_password)
    elif _HEADER_NAME.fullmatch(name.name) and not name.before.endswith("/"):
        yield from _accept(name, _HEADER_VALUE, _is_header)
    yield from _accept(name, _QUOTED_VALUE, lambda *_: True)
    if name.name in _FOLDER_VARIABLES:
        return
    if name.before.endswith("-"):
        yield from _accept(name, _OPTION_VALUE, _is_option_value, "quoted", "value")
    yield from _accept(name, _UNQUOTED_VALUE, _is_assigned)
    if not _is_plain_phrase(name):
        yield from _find_list(name, "text")
        yield from _accept(name, _SENTENCE_VALUE, _is_named)


def _find_in_code(name: _Name) -> Iterator[Secret]:
    if name.name.lower() == "pwd" and _is_connection_string(name):
        yield from _accept(name, _FOLDER_OR_PASSWORD, _is_literal_password)
    yield from _accept(name, _QUOTED_VALUE, _is_literal_value)
    yield from _find_list(name, "code")
    if name.before.endswith("-"):
        yield from _accept(name, _OPTION_VALUE, _is_option_value, "quoted", "value")
    if name.name.isupper() and _is_at_line_start(name):
        yield from _accept(name, _EXPORT_VALUE, _is_literal_value)
    if _COMMENT.search(name.before):
        yield from _accept(name, _SENTENCE_VALUE, lambda _, value: _is_credential(value.rstrip(".,;:)]}")))
    if _is_at_line_start(name):
        yield from _accept(name, _LINE_VALUE, lambda _, value: is_random(value) and is_literal(value))


def _find_in_settings(name: _Name) -> Iterator[Secret]:
    yield from _find_in_code(name)
    if _is_at_line_start(name) and name.name not in _FOLDER_VARIABLES:
        yield from _accept(name, _SETTING_VALUE, _is_setting)


def _find_list(name: _Name, syntax: Syntax) -> Iterator[Secret]:
    """Yield the items of a list under a name; under ``tokens``, if all look like credentials, not like a vocabulary."""
    match = _LIST_VALUE.match(name.text, name.end) or _LINES_VALUE.match(name.text, name.end)
    if match and name.text.startswith("[redacted", match.start("value") - 1):
        return
    if not match:
        if is_tokens_name(name.name):
            yield from _accept(name, _QUOTED_VALUE, lambda _, value: is_random(value))
        return
    spans = [
        item.span("value" if item["value"] else "bare")
        for item in _LIST_ITEM.finditer(name.text, *match.span("value"))
        if item["value"] or syntax != "code"
    ]
    values = [name.text[start:end] for start, end in spans]
    if syntax == "text" and not is_tokens_name(name.name):
        are_secret = [not is_plain_value(name.name, value) for value in values]
    else:
        are_secret = mark_credentials(values)
    yield from (Secret(name.name, *span) for span, is_secret in zip(spans, are_secret, strict=True) if is_secret)


def mark_credentials(values: Sequence[str]) -> list[bool]:
    """Return which values of a list are credentials: random ones, and all if each looks like one."""
    are_all = all(_is_credential(value) and is_literal(value) for value in values)
    return [are_all or (is_random(value) and is_literal(value)) for value in values]


def _is_at_line_start(name: _Name) -> bool:
    return _LINE_START.search(name.before) is not None


def _is_connection_string(name: _Name) -> bool:
    """Whether ``PWD`` is a part of a connection string, as after ``UID=…;``, and not the shell's folder."""
    before = name.before.rstrip()
    after = name.text[name.end : name.end + 300].partition("\n")[0]
    return before.endswith(";") or (before[-1:] in ("", '"', "'") and ";" in after)


def _is_plain_phrase(name: _Name) -> bool:
    """Whether the word before a name makes it harmless: "first pass", "next token"."""
    word = _word_before(name)
    if name.before.endswith(f":{word} ") and word:  # a field of a docstring, as in ":param password: …"
        return True
    return bool(word) and not is_secret_name(f"{word} {name.name}")


def _is_unquoted_password(_: _Name, value: str) -> bool:
    return not _PATH.fullmatch(value) and not value.startswith("$")


def _is_literal_password(name: _Name, value: str) -> bool:
    return _is_unquoted_password(name, value) and is_literal(value)


def _is_literal_value(_: _Name, value: str) -> bool:
    return is_literal(value)


def _is_setting(_: _Name, value: str) -> bool:
    return is_literal(value) and value.strip().lower() not in _CHOICES


def _is_header(_: _Name, value: str) -> bool:
    return "=" in value or _is_credential(value.strip())


def _is_option_value(_: _Name, value: str) -> bool:
    word = value.strip(".,;:)]}").lower()
    return is_literal(value) and word not in _SENTENCE_WORDS and not re.fullmatch(r"[A-Z_]+\W*", value)


def _is_assigned(name: _Name, value: str) -> bool:
    """Whether ``name=value`` without blanks holds a secret: not the argument of a call, as in ``f(token=token)``."""
    around = f"{re.split(_BLANK, name.before[-60:])[-1]}={value[:60]}"
    if len(_NOISE.findall(around)) >= 6:  # random text, such as the base85 of a binary patch
        return False
    argument = _ARGUMENT.fullmatch(value)
    return not ("(" in value or (argument and not _is_credential(argument["name"])) or value.startswith("="))


def _is_named(name: _Name, value: str) -> bool:
    """Whether a sentence such as ``password: value`` or ``TOKEN = value`` holds a secret."""
    value = value.rstrip(".,;:)]}")
    if value.lower() in _SENTENCE_WORDS or not is_literal(value) or _CODE.fullmatch(value):
        return False
    words = name_words(name.name)
    if any(_PASSWORD_WORDS.fullmatch(word) for word in words):
        return not is_secret_name(value)
    return _is_credential(value) or is_random(value)


# a text with a secret contains one of these, in lower case; "@" is the marker of a login
_MARKERS = tuple(
    sorted({"@", "-u", "-p", *_NAME_STEMS, *(marker for _, markers, _ in _KNOWN_FORMS for marker in markers)})
)


def find_secrets(text: str, syntax: Syntax, *, with_users: bool = True) -> Iterator[Secret]:
    """Yield the secrets in a text; they may overlap, and are in no order.

    Args:
        text: The text.
        syntax: What the text is.
        with_users: Whether user names in web addresses count as secrets.
    """
    small = _lower(text)
    if not _can_contain_secret(small):
        return
    yield from _find_known_forms(text, small)
    yield from find_url_logins(text, with_users=with_users)
    yield from find_command_passwords(text)
    yield from _find_named_values(text, small, syntax)


def _lower(text: str) -> str:
    small = text.lower()
    # the lower case of some letters has two characters, which would move the positions
    return small if len(small) == len(text) else re.sub("[A-Z]+", lambda match: match[0].lower(), text)


def _can_contain_secret(small: str) -> bool:
    for marker in _MARKERS:  # noqa: SIM110 - any() takes three times as long, and this runs at each status update
        if marker in small:
            return True
    return False
