"""Redaction: secrets are detected by name and by form, and similar text is left alone."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deriva_ml_core.redaction import has_secret, is_secret_file, is_secret_name, redact, redact_address, redact_text

SECRET_NAMES = [
    *("password", "PASSWORD", "db_password", "PGPASSWORD", "userPassword", "passwd", "passphrase", "MYSQL_PWD"),
    *("secret", "client_secret", "AWS_SECRET_ACCESS_KEY", "secrets", "SECRET_2"),
    *(
        "token",
        "TOKEN",
        "HF_TOKEN",
        "hf-token",
        "accessToken",
        "access_token",
        "GITHUB_TOKEN_2",
        "bot_token",
        "api_tokens",
    ),
    *("api_key", "apikey", "API-KEY", "apiKey", "APIKey", "X-Api-Key", "WANDB_API_KEY", "api_keys", "openai_key"),
    *("private_key", "ssh_key", "encryptionKey", "AWS_ACCESS_KEY_ID", "AccountKey", "signing_key", "license_key"),
    *("credential", "credentials", "aws_credentials", "authorization", "Authorization", "proxy_auth", "auth"),
    *("cookie", "Set-Cookie", "session_cookie", "session_token", "sessionid", "PHPSESSID", "jwt", "bearer"),
    *("smtp_pass", "db_pass", "GITHUB_PAT", "trainer.logger.api_key"),
]
PLAIN_NAMES = [
    *("tokenizer", "tokenizer_name", "max_tokens", "max_new_tokens", "num_tokens", "n_tokens", "tokens", "token_count"),
    *("pad_token", "eos_token", "bos_token_id", "mask_token", "cls_token", "sep_token", "unk_token", "pad_token_id"),
    *("token_type_ids", "TOKENIZERS_PARALLELISM", "tokenization", "image_token"),
    *("session_id", "session", "session_date", "XDG_SESSION_ID", "JPY_SESSION_NAME"),
    *("key", "keys", "primary_key", "foreign_key", "key_padding_mask", "sort_key", "public_key", "keyboard", "monkey"),
    *("author", "authors", "authority", "auth_url", "auth_method", "authenticated", "SSH_AUTH_SOCK"),
    *("forward_pass", "num_passes", "pass_through", "bypass", "compass", "passenger", "passed"),
    *("PWD", "OLDPWD", "password_file", "secret_name", "token_url", "credential_path", "password_min_length"),
    *("secretary", "cookiecutter", "learning_rate", "PATH", "LANG", "", "pattern", "pat", "spat", "patience"),
]

# none is a real secret; they are assembled here so that secret scanners do not report this file
FORMS = {
    "GitHub token": "ghp_" + "a1B2" * 9,
    "GitHub fine token": "github_pat_" + "11ABCDEFG0" * 4,
    "GitLab token": "glpat-" + "x1y2z3A4" * 3,
    "Hugging Face token": "hf_" + "aBcDeFgHiJ" * 3 + "abcd",
    "OpenAI key": "sk-" + "a1B2c3D4" * 6,
    "OpenAI project key": "sk-proj-" + "a1B2_c3-D4" * 6,
    "Anthropic key": "sk-ant-api03-" + "a1B2_c3-D4" * 6,
    "AWS key": "AKIA" + "IOSFODNN7EXAMPLE",
    "Slack token": "xoxb-" + "123456789012-abcdefABCDEF",
    "Google key": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "web token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl",
    "Stripe key": "sk_live_" + "a1B2c3D4" * 3,
    "npm token": "npm_" + "a1B2" * 9,
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" * 4,
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END " + "RSA PRIVATE KEY-----",
}
HARMLESS = [
    "Epoch 3: loss=0.1234, accuracy=0.98, tokens=1024, max_tokens=2048",
    "https://github.com/org/repo/blob/0123456789012345678901234567890123456789/src/train.py",
    "git@github.com:org/repo.git",
    "ssh://git@github.com:22/org/repo.git",
    "http://localhost:8888/lab/tree/a@b.ipynb",
    "scikit-learn, sk-learn-compatible-estimators, hf_model_name_or_path_of_some_length",
    "0123456789abcdef0123456789abcdef01234567",
    "the bearer of this letter, a bearer instrument",
    "ask me for the password, and tell me the token",
    "epoch=3-step=100.ckpt",
    "python train.py --lr 0.1 --max-tokens 512 --tokenizer bert --session-id 12",
    "/usr/bin:/bin:/home/user/.local/bin",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "trainer.max_epochs=10 model.pad_token=<pad> data.key=value",
    "",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secret_name_is_redacted(name: str) -> None:
    """The value under a secret's name is replaced, and the replacement names it."""
    assert is_secret_name(name)
    assert redact({name: "hunter2"}) == {name: f"[redacted: {name}]"}


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_similar_name_is_kept(name: str) -> None:
    """A name such as ``max_tokens`` or ``primary_key`` keeps its value."""
    assert redact({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("secret", FORMS.values(), ids=FORMS.keys())
def test_secret_form_is_redacted(secret: str) -> None:
    """A known form is replaced anywhere in a text, and a diff that holds it counts as secret."""
    text = f"before {secret} after"
    assert secret not in redact_text(text)
    assert redact_text(text).startswith("before [redacted: ")
    assert redact_text(text).endswith("after") or "private key" in redact_text(text)
    assert secret not in json.dumps(redact({"description": [text]}))
    assert has_secret(f"+x = 1\n+{secret}\n")


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_kept(text: str) -> None:
    """Ordinary text about a run stays unchanged, and a diff with it does not count as secret."""
    assert redact({"text": text}) == {"text": text}
    assert not has_secret(f"+{text}\n")


@pytest.mark.parametrize(
    ("text", "secret", "left"),
    [
        ("postgresql://bob:hunter2@db.example.org:5432/ml", "hunter2", "db.example.org:5432/ml"),
        ("postgresql://bob:hun/ter2@db.example.org/ml", "ter2", "db.example.org/ml"),
        ("mongodb://bob:hunter@2@db.example.org/ml", "hunter", "db.example.org/ml"),
        ("redis://:hunter2@cache:6379", "hunter2", "cache:6379"),
        ("https://x-access-token:hunter2@github.com/org/repo", "hunter2", "github.com/org/repo"),
        ("https://hunter2hunter2@github.com/org/repo", "hunter2", "github.com/org/repo"),
        ("http://bob:8080pass@host/", "8080pass", "host/"),
        ("https://host/file?X-Amz-Signature=hunter2&part=1", "hunter2", "part=1"),
        ("https://host/api?access_token=hunter2&page=1", "hunter2", "page=1"),
        ("curl -H 'Authorization: Bearer hunter2hunter2'", "hunter2", "curl"),
        ("Authorization: Basic aHVudGVyMg==", "aHVudGVyMg", "Authorization"),
        ("Cookie: webauthn=hunter2", "hunter2", "Cookie"),
        ("login failed with password: hunter2", "hunter2", "login failed"),
        ('{"user": "bob", "password": "hunter2"}', "hunter2", '"user": "bob"'),
        ('{\\"user\\": \\"bob\\", \\"password\\": \\"hunter2\\"}', "hunter2", "bob"),
        ("connect(user='bob', password='hunter2', port=1)", "hunter2", "user='bob'"),
        ("DefaultEndpointsProtocol=https;AccountKey=hunter2==;Suffix=net", "hunter2", "Suffix=net"),
        ("logger.api_key=hunter2 max_epochs=3", "hunter2", "max_epochs=3"),
    ],
)
def test_only_the_secret_in_a_text_is_redacted(text: str, secret: str, left: str) -> None:
    """Only the secret is replaced; the text around it stays."""
    assert secret not in redact_text(text)
    assert left in redact_text(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "--password", "hunter2", "--lr", "0.1"],
        ["train.py", "--password=hunter2", "--lr", "0.1"],
        ["train.py", "--api-key=hunter2 & more=hunter2", "--lr", "0.1"],
        ["train.py", "--hf_token", "hunter2", "--lr", "0.1"],
        ["train.py", "-token", "hunter2", "--lr", "0.1"],
        ["train.py", "logger.api_key=hunter2", "--lr", "0.1"],
        ["train.py", "+logger.token=hunter2", "--lr", "0.1"],
    ],
)
def test_command_line_is_redacted(arguments: list[str]) -> None:
    """An option with a secret's name loses its value, in the same or the next argument; other options keep theirs."""
    redacted = redact({"argv": arguments})
    assert "hunter2" not in json.dumps(redacted)
    assert "[redacted: " in json.dumps(redacted)
    assert redacted["argv"][0] == "train.py"  # type: ignore[index, call-overload]
    assert redacted["argv"][-2:] == ["--lr", "0.1"]  # type: ignore[index, call-overload]


def test_flag_without_value_is_kept() -> None:
    """A flag with a name like a secret's leaves the next option unchanged."""
    assert redact(["--use-auth-token", "--lr", "0.1"]) == ["--use-auth-token", "--lr", "0.1"]


def test_nested_values_under_a_secret_name_are_redacted() -> None:
    """Texts and numbers under a secret's name are replaced at any depth; booleans and None stay."""
    value = {"credentials": {"user": "bob", "pin": 1234, "set": True, "other": None, "list": ["a", "b"], "empty": ""}}
    mark = "[redacted: credentials]"
    hidden = {"user": mark, "pin": mark, "set": True, "other": None, "list": [mark, mark], "empty": ""}
    assert redact(value) == {"credentials": hidden}


def test_other_values_keep_their_types() -> None:
    """Values that are neither text nor secret are unchanged."""
    value = {"lr": 0.1, "epochs": 3, "debug": True, "seed": None, "sizes": [1, 2, {"a": 3}], "use_auth_token": True}
    assert redact(value) == value


@pytest.mark.parametrize(
    "line",
    [
        'PASSWORD = "hunter2"',
        "password: str = 'hunter2'",
        'login(user="bob", password="hunter2")',
        'config = {"api_key": "hunter2"}',
        'os.environ["HF_TOKEN"] = "hunter2"',
        'self.secret = f"hunter2"',
        'if password == "hunter2":',
        'token = """hunter2"""',
        'engine = create_engine("postgresql://bob:hunter2@db/ml")',
        "subprocess.run('tool --password hunter2')",
        "export HF_TOKEN=hunter2abc",
    ],
)
@pytest.mark.parametrize("sign", ["+", "-", " "])
def test_literal_secret_in_a_program_is_detected(line: str, sign: str) -> None:
    """A literal under a secret's name is detected in added, removed and context lines of a diff."""
    assert has_secret(f"@@ -1 +1 @@\n{sign}{line}\n", "train.py")


@pytest.mark.parametrize(
    "line",
    [
        'password = os.environ["PASSWORD"]',
        'password = os.environ.get("DB_PASSWORD")',
        "password = getpass()",
        "def login(user: str, password: str, token: str | None = None) -> None:",
        "token: SecretStr",
        "api_key=None, secret=settings.secret",
        'password = ""',
        'token = "<your token>"',
        'token = "${HF_TOKEN}"',
        'headers = {"Authorization": f"Bearer {token}"}',
        'url = f"https://{user}:{password}@host/"',
        "https://user:token@host/org/repo.git",
        'pad_token = "<pad>"',
        'eos_token = "</s>"',
        'oov_token = "[OOV]"',
        'if token == "@":',
        'print("\\"$last_update_token\\"")',
        'tokenizer = "bert-base-uncased"',
        'TOKEN_VARIABLE = "HF_TOKEN"',
        "    password: the password of the database",
        "    --token TOKEN    the token to use",
        "for token in tokens:",
        "key = 'accuracy'",
    ],
)
def test_program_without_literal_secret_is_kept(line: str) -> None:
    """Code that reads, names or describes a secret does not count as holding one."""
    assert not has_secret(f"+{line}\n", "train.py")


@pytest.mark.parametrize("file", [".env", "conf/db.yaml", "settings.toml", "run.sh", ".env.local"])
def test_settings_need_no_quotes(file: str) -> None:
    """In settings files, an unquoted word after a secret's name is a literal."""
    assert has_secret("+DB_PASSWORD=correcthorse\n", file)
    assert not has_secret("+DB_PASSWORD=correcthorse\n", "notes.py")
    assert not has_secret("+DB_PASSWORD=${PASSWORD}\n", file)
    assert not has_secret("+max_tokens: 12\n", file)


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "a/.netrc", "id_rsa", "tls/server.pem", "server.KEY", ".pypirc"]
)
def test_secret_file_is_detected_by_name(name: str) -> None:
    """Files such as ``.env`` and ``id_rsa`` count as secret, whatever they contain."""
    assert is_secret_file(name)


@pytest.mark.parametrize("name", [".env.example", "train.py", "keys.py", "environment.yml", ".envoy", "id_rsa.pub"])
def test_similar_file_name_is_not_secret(name: str) -> None:
    """Files with similar names, such as ``.env.example``, do not count as secret."""
    assert not is_secret_file(name)


PLANTED = "Zq7Planted9Secret"
ALPHABET = string.ascii_letters + string.digits + " _-.,:/@?&=%'\"{}[]\\\n"


@given(
    st.text(ALPHABET),
    st.sampled_from(SECRET_NAMES),
    st.sampled_from(["{}={}", '"{}": "{}"', "{} = '{}'"]),
    st.text(ALPHABET),
)
def test_surrounding_text_does_not_hide_a_secret(before: str, name: str, form: str, after: str) -> None:
    """An assigned secret is replaced in any surrounding text that a blank separates from it."""
    assert PLANTED not in redact_text(f"{before}\n{form.format(name, PLANTED)}\n{after}")


@given(st.text(ALPHABET), st.text(string.ascii_letters + "%!$&*+,;=._~-"), st.text(ALPHABET))
def test_password_in_a_url_is_redacted(before: str, user: str, after: str) -> None:
    """A URL's password is replaced, whatever the user name and the surrounding text."""
    assert PLANTED not in redact_text(f"{before} https://{user}:{PLANTED}@host/path {after}")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(ALPHABET),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*SECRET_NAMES, *PLAIN_NAMES]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_redaction_is_idempotent(value: object) -> None:
    """Redacting again changes nothing, and the result is JSON with the same keys."""
    redacted = redact(value)  # type: ignore[arg-type]
    assert redact(redacted) == redacted
    assert json.loads(json.dumps(redacted)) == redacted


def test_redaction_time_is_linear() -> None:
    """The time for a long text without breaks grows linearly with its length."""
    for text in ("a" * 2**18, "ab=" * 2**16, "://" * 2**16, "token=" * 2**15, "eyJ" * 2**16):
        assert len(redact_text(text)) > 0
        has_secret(text)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("login={token: correct-horse, user: me}", "login={token: [redacted: token], user: me}"),
        ("+a.logins=[{user: me, api_key: correct horse}]", "+a.logins=[{user: me, api_key: [redacted: api_key]}]"),
        ("login={token: one},{token: two}", "login={token: [redacted: token]},{token: [redacted: token]}"),
        ("network={tokens: 3, layers: [1, 2]}", "network={tokens: 3, layers: [1, 2]}"),
    ],
)
def test_mapping_in_an_override(word: str, shown: str) -> None:
    """Secrets in unquoted mappings of Hydra overrides are replaced; braces in a program are left alone."""
    assert redact([word]) == [shown]
    assert redact([shown]) == [shown]
    assert redact_text("call({token: value})") == "call({token: value})"


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("postgresql://ada@db.example.org/runs", "postgresql://ada@db.example.org/runs"),
        ("postgresql://ada:secret@db.example.org/runs", "postgresql://[redacted: login]@db.example.org/runs"),
        ("postgresql://ada@db/runs?password=hunter22", "postgresql://ada@db/runs?password=[redacted: password]"),
    ],
)
def test_user_of_a_database_stays(address: str, printed: str) -> None:
    """The user of a database is no secret; its password is."""
    assert redact_address(address) == printed
