"""A corpus of secrets in the forms in which they occur, and of harmless values that look like secrets.

No secret is real. Tokens of a known form are assembled, so that scanners do not report this file.
"""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any, NamedTuple

__all__ = [
    "HARMLESS_FILES",
    "HARMLESS_TEXTS",
    "HARMLESS_VALUES",
    "SECRET_FILES",
    "SECRET_TEXTS",
    "SECRET_VALUES",
    "SecretFile",
    "SecretText",
    "SecretValue",
    "random_base85",
]

WORD = "hunter2"
PASSWORD = "S3cr3t-Vault-88"
HEX = "9f86d081884c7d659a2feaa0c55ad015"
LONG = "Zk4tW9bQ7xLr2VnYc8HsDm3G"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
GITHUB = "ghp_" + "a1B2" * 9
HUGGING_FACE = "hf_" + "aBcDeFgHiJ" * 3 + "abcd"
DATABRICKS = "dapi" + "0a1b2c3d" * 4
NPM = "npm_" + "a1B2" * 9
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl"
PRIVATE_KEY = (
    "-----BEGIN "
    + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END "
    + ("OPENSSH PRIVATE KEY-----")
)


class SecretValue(NamedTuple):
    """A JSON value with a secret.

    Args:
        form: The form of the secret.
        value: The value: a configuration, an environment or a command line.
        secret: The text that must not be recorded.
        kept: A text of the value that must be recorded.
    """

    form: str
    value: Any
    secret: str
    kept: str = ""


class SecretText(NamedTuple):
    """A text with a secret.

    Args:
        form: The form of the secret.
        text: The text: a description, a message or a parameter.
        secret: The text that must not be recorded.
        kept: A part of the text that must be recorded.
    """

    form: str
    text: str
    secret: str
    kept: str = ""


class SecretFile(NamedTuple):
    """A file whose change must not be in a patch.

    Args:
        form: The form of the secret.
        path: The path in the repository.
        content: The content of the file.
    """

    form: str
    path: str
    content: str


def _keys(*names: str, secret: str = WORD) -> list[SecretValue]:
    return [SecretValue(f"key {name}", {"lr": 0.1, name: secret}, secret, "0.1") for name in names]


def _command(form: str, line: str, secret: str, kept: str = "") -> SecretValue:
    return SecretValue(f"argv {form}", line.split(), secret, kept)


SECRET_VALUES = [
    *_keys("pass", "pw", "pwd", "Pwd", "db_pw", "dbPw", "db_pass", "user_pw", "mysql_pwd", "PASS"),
    *_keys("app_key", "hmac_key", "s3_key", "APP_KEY", "hmacKey", "s3-key", "storage_key", "aes_key", secret=LONG),
    *_keys("app_key", "hmac_key", "s3_key"),
    *_keys("password", "db_password", "PGPASSWORD", "passphrase", "secret", "client_secret", "token", "HF_TOKEN"),
    *_keys("api_key", "apiKey", "WANDB_API_KEY", "private_key", "authorization", "cookie", "jwt", "credentials"),
    *_keys("aws_secret_access_key", "s3_secret", "secretKey", secret=AWS_SECRET),
    SecretValue("list under tokens", {"tokens": [WORD, LONG], "epochs": 3}, WORD, "epochs"),
    SecretValue("list under tokens", {"tokens": [HEX]}, HEX),
    SecretValue("list under tokens", {"service": {"tokens": ["abc123def456"]}}, "abc123def456", "service"),
    SecretValue("mapping under tokens", {"tokens": {"hub": LONG, "tracker": HEX}}, LONG, "hub"),
    SecretValue("list under api_tokens", {"api_tokens": ["correct", "horse"]}, "horse"),
    SecretValue("text under tokens", {"tokens": LONG}, LONG),
    SecretValue("list of mappings", {"stores": [{"name": "a", "pw": WORD}]}, WORD, "name"),
    SecretValue("Kaggle's file as a value", {"username": "reader", "key": HEX}, HEX, "reader"),
    SecretValue("named value", {"name": "DB_PASSWORD", "value": WORD}, WORD, "DB_PASSWORD"),
    SecretValue("named value in a list", {"env": [{"name": "API_KEY", "value": LONG}]}, LONG, "API_KEY"),
    SecretValue("known token under any name", {"note": GITHUB}, GITHUB, "note"),
    SecretValue("known token under any name", {"x": [HUGGING_FACE]}, HUGGING_FACE),
    SecretValue("private key under any name", {"x": PRIVATE_KEY}, "b3BlbnNzaC1rZXktdjE"),
    SecretValue("command inside a parameter", {"command": "train --password hunter2 --lr 0.1"}, WORD, "--lr 0.1"),
    SecretValue("command inside a parameter", {"launch": "mysql -u root -phunter2 runs"}, WORD, "mysql -u root"),
    SecretValue("command inside a parameter", {"hook": "curl -u bob:hunter2 https://host/x"}, WORD, "https://host/x"),
    SecretValue("command inside a parameter", {"run": "x --pass hunter2 && y --lr 1"}, WORD, "y --lr 1"),
    SecretValue("command inside a parameter", {"run": "DB_PW=hunter2 python train.py"}, WORD, "python train.py"),
    SecretValue("command inside a parameter", {"run": "python t.py --api-key 'hunter2 x' --lr 1"}, WORD, "--lr 1"),
    _command("--pass X", "train.py --pass hunter2 --lr 0.1", WORD, "0.1"),
    _command("--pass=X", "train.py --pass=hunter2 --lr 0.1", WORD, "0.1"),
    _command("--pw X", "train.py --pw hunter2 --lr 0.1", WORD, "0.1"),
    _command("--pwd X", "train.py --pwd hunter2 --lr 0.1", WORD, "0.1"),
    _command("--db-pw X", "train.py --db-pw hunter2 --lr 0.1", WORD, "0.1"),
    _command("--app-key X", f"train.py --app-key {LONG} --lr 0.1", LONG, "0.1"),
    _command("--password X", "train.py --password hunter2 --lr 0.1", WORD, "0.1"),
    _command("--password X with a dash", "train.py --password -hunter2 --lr 0.1", WORD, "0.1"),
    _command("-u user:X", "curl -u bob:hunter2 https://host/x", WORD, "https://host/x"),
    _command("-u user:X of any program", "fetch.py -u bob:hunter2 --lr 0.1", WORD, "0.1"),
    _command("-uuser:X", "curl -ubob:hunter2 https://host/x", WORD, "https://host/x"),
    _command("--user user:X", "curl --user bob:hunter2 https://host/x", WORD, "https://host/x"),
    _command("--user=user:X", "curl --user=bob:hunter2 https://host/x", WORD, "https://host/x"),
    _command("--proxy-user user:X", "curl --proxy-user bob:hunter2 https://host/x", WORD, "https://host/x"),
    _command("mysql -pX", "mysql -u root -phunter2 runs", WORD, "runs"),
    _command("mysqldump -pX", "/usr/bin/mysqldump -phunter2 runs", WORD, "runs"),
    _command("sshpass -p X", "sshpass -p hunter2 ssh host", WORD, "host"),
    _command("docker login -p X", "docker login -u bob -p hunter2 registry.example.org", WORD, "bob"),
    _command("redis-cli -a X", "redis-cli -h cache -a hunter2 PING", WORD, "PING"),
    _command("mongosh -p X", "mongosh -u bob -p hunter2 host", WORD, "host"),
    _command("zip -P X", "zip -P hunter2 out.zip data", WORD, "out.zip"),
    _command("openssl pass:X", "openssl enc -k key -passin pass:hunter2 -in a", WORD, "-in"),
    _command("header", "curl -H X-Api-Key:hunter2 https://host/x", WORD, "https://host/x"),
    _command("known token", f"train.py {GITHUB}", GITHUB, "train.py"),
    _command("URL with a password", "train.py --db postgresql://bob:hunter2@db/ml", WORD, "db/ml"),
    SecretValue("argv header", ["curl", "-H", "Authorization: Basic aHVudGVyMg==", "x"], "aHVudGVyMg", "curl"),
    SecretValue("argv of a shell", ["bash", "-c", "mysql -phunter2 runs"], WORD, "bash"),
    _command("override", "train.py logger.pw=hunter2 lr=0.1", WORD, "lr=0.1"),
    _command("override with a mapping", "train.py login={pw:hunter2,user:me} lr=0.1", WORD, "lr=0.1"),
]

SECRET_TEXTS = [
    SecretText("PASSWORD = X", "PASSWORD = hunter2", WORD),
    SecretText("PASSWORD = X in lines", "user = bob\nPASSWORD = correcthorse\nport = 1\n", "correcthorse", "port = 1"),
    SecretText("password : X", "password : hunter2", WORD),
    SecretText("password: X in a sentence", "login failed with password: hunter2", WORD, "login failed"),
    SecretText("pw: X", "user bob, pw: hunter2", WORD, "user bob"),
    SecretText("pass: X", "user: bob, pass: hunter2.", WORD, "user: bob"),
    SecretText("token: X", "token: hunter2", WORD),
    SecretText("token: X in a sentence", f"Used the token: {LONG} for the hub", LONG, "for the hub"),
    SecretText("Token = X", f"Token = {HEX}", HEX),
    SecretText("api key: X", f"API key: {LONG}", LONG),
    SecretText("api_key = X", f"api_key = {LONG}", LONG),
    SecretText("secret: X", "secret: S3cr3t-Vault-88", PASSWORD),
    SecretText("Pwd=X;", "Server=db;Database=ml;Uid=bob;Pwd=hunter2;", WORD, "Uid=bob"),
    SecretText("PWD=X;", "DRIVER={SQL Server};SERVER=db;UID=bob;PWD=hunter2;DATABASE=ml", WORD, "DATABASE=ml"),
    SecretText("PWD=X at the end", "DSN=ml;UID=bob;PWD=hunter2", WORD, "UID=bob"),
    SecretText("Password=X;", "Data Source=db;User ID=bob;Password=hunter2;", WORD, "User ID=bob"),
    SecretText("AccountKey=X;", f"AccountName=ml;AccountKey={LONG}==;EndpointSuffix=net", LONG, "AccountName=ml"),
    SecretText("SharedAccessKey=X", f"Endpoint=sb://x/;SharedAccessKey={LONG}=", LONG, "Endpoint=sb"),
    SecretText("libpq", "host=db user=bob password=hunter2 dbname=ml", WORD, "dbname=ml"),
    SecretText("libpq with quotes", "host=db user=bob password='hunter 2' dbname=ml", "hunter 2", "dbname=ml"),
    SecretText("URL", "postgresql://bob:hunter2@db.example.org:5432/ml", WORD, "db.example.org:5432/ml"),
    SecretText("URL with a token", f"https://{GITHUB}@github.com/org/repo", GITHUB, "github.com/org/repo"),
    SecretText("conda channel", "https://conda.anaconda.org/t/tk-0a1b2c3d4e5f/channel", "tk-0a1b2c3d4e5f", "channel"),
    SecretText("query", "https://host/api?api_key=hunter2&page=1", WORD, "page=1"),
    SecretText("JDBC", "jdbc:sqlserver://db;user=bob;password=hunter2;", WORD, "user=bob"),
    SecretText("command", "Run with train.py --password hunter2 --lr 0.1", WORD, "--lr 0.1"),
    SecretText("command", "python train.py --pw=hunter2 --lr 0.1", WORD, "--lr 0.1"),
    SecretText("command", "mysql -u root -phunter2 runs", WORD, "runs"),
    SecretText("command", "curl -u bob:hunter2 https://host/x", WORD, "https://host/x"),
    SecretText("command in a sentence", "Data came from `curl -u bob:hunter2 https://host/x`.", WORD, "https://host/x"),
    SecretText("variable", "export DB_PW=hunter2", WORD, "export DB_PW"),
    SecretText("header", "X-Api-Key: hunter2", WORD),
    SecretText("header", "Cookie: session=hunter2; a=b", WORD),
    SecretText("JSON", '{"user": "bob", "pw": "hunter2"}', WORD, "bob"),
    SecretText("JSON in a list", '{"tokens": ["Zk4tW9bQ7xLr2VnYc8HsDm3G"], "epochs": 3}', LONG, "epochs"),
    SecretText("Kaggle's file", '{"username":"reader","key":"9f86d081884c7d659a2feaa0c55ad015"}', HEX, "reader"),
    SecretText("Python", "login(user='bob', pw='hunter2')", WORD, "user='bob'"),
    SecretText("Python", "login(user='bob', app_key='hunter2')", WORD, "user='bob'"),
    SecretText("netrc", "machine host.example.org login bob password hunter2", WORD, "host.example.org"),
    SecretText("Databricks token", f"uses {DATABRICKS}", DATABRICKS, "uses"),
    SecretText("npm token", f"uses {NPM}", NPM, "uses"),
    SecretText("web token", f"uses {JWT}", JWT, "uses"),
    SecretText("AWS key", "uses AKIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE", "uses"),
    SecretText("private key", f"uses\n{PRIVATE_KEY}\n", "b3BlbnNzaC1rZXktdjE", "uses"),
]

_KUBECONFIG = f"""apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t
    server: https://127.0.0.1:6443
users:
- name: admin
  user:
    client-key-data: {base64.b64encode(PRIVATE_KEY.encode()).decode()}
"""
_KUBECONFIG_TOKEN = f"apiVersion: v1\nkind: Config\nusers:\n- name: admin\n  user:\n    token: {LONG}\n"
_NETRC = "machine host.example.org\n  login bob\n  password hunter2\n"
_HISTORY = "ls\nmysql -u root -phunter2 runs\n"
_RCLONE = f"[store]\ntype = sftp\nhost = host.example.org\nuser = bob\npass = {LONG}_obscured\n"

SECRET_FILES = [
    SecretFile("netrc by name", ".netrc", _NETRC),
    SecretFile("netrc under another name", "conf/login.txt", _NETRC),
    SecretFile("netrc in one line", "notes.md", "machine host.example.org login bob password hunter2\n"),
    SecretFile("netrc default", "login", "default login bob password hunter2\n"),
    SecretFile("netrc in a program", "make_netrc.py", 'text = """machine h login bob password hunter2"""\n'),
    SecretFile("kubeconfig by name", ".kube/config", _KUBECONFIG),
    SecretFile("kubeconfig by name", "kubeconfig", "apiVersion: v1\n"),
    SecretFile("kubeconfig by name", "admin.kubeconfig", "apiVersion: v1\n"),
    SecretFile("kubeconfig by form", "cluster.yaml", _KUBECONFIG),
    SecretFile("kubeconfig by form", "cluster", _KUBECONFIG),
    SecretFile("kubeconfig with a token", "cluster", _KUBECONFIG_TOKEN),
    SecretFile(".npmrc", ".npmrc", f"//registry.npmjs.org/:_authToken={NPM}\n"),
    SecretFile(".npmrc", "ui/.npmrc", "//registry.example.org/:_authToken=0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f\n"),
    SecretFile(".npmrc", ".npmrc", "//registry.example.org/:_password=aHVudGVyMg==\n"),
    SecretFile(".npmrc", ".npmrc", "_auth = aHVudGVyMjpodW50ZXIy\n"),
    SecretFile("kaggle.json", "kaggle.json", f'{{"username":"reader","key":"{HEX}"}}'),
    SecretFile("kaggle.json", ".kaggle/kaggle.json", "{}"),
    SecretFile("kaggle.json under another name", "login.json", f'{{"username": "reader", "key": "{HEX}"}}'),
    SecretFile(".my.cnf", ".my.cnf", "[client]\nuser=root\npassword=hunter2\n"),
    SecretFile(".my.cnf", "conf/my.cnf", "[client]\nuser=root\npassword = hunter2\n"),
    SecretFile(".mylogin.cnf", ".mylogin.cnf", "anything\n"),
    SecretFile(".databrickscfg", ".databrickscfg", f"[DEFAULT]\nhost = https://x\ntoken = {DATABRICKS}\n"),
    SecretFile(".databrickscfg", ".databrickscfg", "[DEFAULT]\nhost = https://x\n"),
    SecretFile(".s3cfg", ".s3cfg", f"[default]\naccess_key = {LONG}\nsecret_key = {AWS_SECRET}\n"),
    SecretFile(".boto", ".boto", f"[Credentials]\ngs_oauth2_refresh_token = {LONG}\n"),
    SecretFile("rclone.conf", "rclone.conf", _RCLONE),
    SecretFile("rclone.conf under another name", "store.conf", _RCLONE),
    SecretFile(".dvc/config.local", ".dvc/config.local", "['remote \"store\"']\n    password = hunter2\n"),
    SecretFile(".dvc/config.local", "sub/.dvc/config.local", "[core]\n"),
    SecretFile(".vault-token", ".vault-token", "s.anything\n"),
    SecretFile("AWS", ".aws/credentials", "[default]\n"),
    SecretFile("AWS", ".aws/config", f"[default]\naws_secret_access_key = {AWS_SECRET}\n"),
    SecretFile("Google", "application_default_credentials.json", '{"refresh_token": "x"}'),
    SecretFile("Google", "service.json", f'{{"type": "service_account", "private_key": "{PRIVATE_KEY!r}"}}'),
    SecretFile("Docker", ".docker/config.json", '{"auths": {"x": {"auth": "aHVudGVyMjpodW50ZXIy"}}}'),
    SecretFile("history", ".bash_history", _HISTORY),
    SecretFile("history", ".zsh_history", ": 1700000000:0;ls\n"),
    SecretFile("history", ".python_history", "print(1)\n"),
    SecretFile("history", ".psql_history", "select 1;\n"),
    SecretFile("history", ".mysql_history", "select 1;\n"),
    SecretFile("history", ".node_repl_history", "1\n"),
    SecretFile("history", ".local/share/fish/fish_history", "- cmd: ls\n"),
    SecretFile("history", ".histfile", "ls\n"),
    SecretFile("history", "home/.sqlite_history", ".tables\n"),
    SecretFile("history", ".lesshst", ".less-history-file:\n"),
    SecretFile("commands with a password", "commands.txt", _HISTORY),
    SecretFile("commands with a password", "run.sh", "curl -u bob:hunter2 https://host/x\n"),
    SecretFile("commands with a password", "Makefile", "load:\n\tmysql -u root -phunter2 runs < a.sql\n"),
    SecretFile(".condarc", ".condarc", "channels:\n  - https://conda.anaconda.org/t/tk-0a1b2c3d4e5f/private\n"),
    SecretFile(".condarc", ".condarc", "channel_alias: https://bob:hunter2@conda.example.org\n"),
    SecretFile("pip.conf", "pip.conf", "[global]\nindex-url = https://bob:hunter2@pypi.example.org/simple\n"),
    SecretFile(".env", ".env", "NAME=value\n"),
    SecretFile("settings", "conf/db.yaml", "db:\n  user: bob\n  pw: hunter2\n"),
    SecretFile("settings", "conf/db.ini", "[db]\nuser = bob\nPASSWORD = hunter2\n"),
    SecretFile("settings", "settings.toml", f'app_key = "{LONG}"\n'),
    SecretFile("settings", "conf.json", f'{{"tokens": ["{LONG}", "{HEX}"]}}'),
    SecretFile("settings", "conf.yaml", f"tokens:\n  - {LONG}\n  - {HEX}\n"),
    SecretFile("settings", "compose.yaml", "environment:\n  - MYSQL_ROOT_PASSWORD=hunter2\n"),
    SecretFile("settings", "terraform.tfvars", 'db_password = "hunter2"\n'),
    SecretFile("program", "train.py", "x = 1  # the password: hunter2\n"),
    SecretFile("program", "cell.py", "%env DB_PASSWORD=hunter2\n"),
    SecretFile("program", "train.py", 'db_pw = "hunter2"\n'),
    SecretFile("program", "train.py", f'login(app_key="{LONG}")\n'),
    SecretFile("program", "train.py", 'odbc = "DRIVER={x};UID=bob;PWD=hunter2;"\n'),
    SecretFile("program", "train.py", 'subprocess.run(["mysql", "-u", "root", "-phunter2"])\n'),
    SecretFile("program", "train.py", 'subprocess.run(["train", "--password", "hunter2"])\n'),
    SecretFile("program", "train.py", "os.system('curl -u bob:hunter2 https://host/x')\n"),
    SecretFile("program", "train.py", f'TOKENS = ["{LONG}", "{HEX}"]\n'),
    SecretFile("key file", "id_ed25519", "x\n"),
    SecretFile("key file", "tls/server.pem", "x\n"),
    SecretFile("private key", "notes.txt", f"{PRIVATE_KEY}\n"),
    SecretFile("known token", "notes.txt", f"{HUGGING_FACE}\n"),
]

_IMAGE = base64.b64encode(random.Random(1).randbytes(3000)).decode()
_MD5 = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
_SHA = hashlib.sha256(b"x").hexdigest()
_COMMIT = "0123456789abcdef0123456789abcdef01234567"

HARMLESS_VALUES: list[Any] = [
    {"tokenizer": "bert-base-uncased", "tokenizer_name": "gpt2", "tokenizer_path": "/models/tok.json"},
    {"max_tokens": 512, "max_new_tokens": 20, "num_tokens": 1_000_000, "n_tokens": 3, "tokens_per_second": 812.5},
    {"max_tokens": "512", "tokens": 1024, "total_tokens": "1.5B", "token_budget": "4k", "tokens_seen": "3e9"},
    {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "[UNK]", "mask_token": "<mask>"},
    {"pad_token_id": 0, "eos_token_id": [1, 2], "token_type_ids": [0, 0, 1], "decoder_start_token_id": 5},
    {"tokens": ["the", "cat", "##ing", "Ġthe", "▁Hello", "<pad>", "[CLS]", "word2vec"]},
    {"special_tokens": ["<pad>", "<s>"], "stop_tokens": ["\n\n", "END"], "additional_special_tokens": ["<image>"]},
    {"tokens": {"train": 1000, "val": 100}, "image_token": "<image>", "token": "<s>"},
    {"pass_through": True, "bypass": "layer3", "forward_pass": "fast", "num_passes": 2, "n_pass": 3, "pass": 2},
    {"first_pass": "coarse", "second_pass": "fine", "low_pass": "butter", "band_pass": "8-12Hz", "multi_pass": "yes"},
    {"pass": True, "passed": "all", "encoder_pass": "full", "pass@1": 0.31, "pass@10": "0.6", "test_pass": 12},
    {"password_field_name": "pwd", "password_file": "/run/secrets/db", "password_env": "DB_PASSWORD"},
    {"secret_name": "db", "token_url": "https://host/token", "credential_path": "~/.aws", "key_file": "a.key"},
    {"use_auth_token": True, "use_auth": False, "token": None, "password": "", "api_key": None},
    {"password": "${oc.env:DB_PASSWORD}", "token": "$HF_TOKEN", "api_key": "{{ secrets.key }}", "pw": "<password>"},
    {"key": "accuracy", "keys": ["image", "label"], "primary_key": "RID", "sort_key": "loss", "monitor_key": "val"},
    {"s3_key": "datasets/train/images.tar", "image_key": "jpg", "label_key": "cls", "key_prefix": "runs/a"},
    {"s3_key": "s3://bucket/datasets/train", "app_key_name": "main", "key_size": 2048, "key_dim": 64},
    {"PWD": "/home/bob/project", "OLDPWD": "/home/bob", "pwd": "/data/run 1", "INIT_PWD": "/work"},
    {"conv_pw": "relu6", "pw_conv": True, "kernel_pw": 1, "pw_loss": "hinge", "ecut_pw": 40.0},
    {"md5": _MD5, "sha256": _SHA, "commit": _COMMIT, "revision": _COMMIT[:7], "checksum": f"sha256:{_SHA}"},
    {"dataset_hash": _MD5, "etag": f'"{_MD5}"', "digest": base64.b64encode(bytes.fromhex(_MD5)).decode()},
    {"model": "meta-llama/Llama-3.1-8B-Instruct", "checkpoint": "epoch=3-step=100.ckpt", "rid": "1-ABCD"},
    {"image": f"data:image/png;base64,{_IMAGE}", "uuid": "0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f"},
    {"author": "Bob Reader", "authors": ["A", "B"], "authentication": "oauth2", "auth_method": "token"},
    {"cookie_policy": "strict", "session": "morning", "session_id": "2024-01-05", "secretary": "Ann"},
    {"seed": 20240105, "uid": 1000, "wandb_run_id": "3jk2h1ab", "job_id": "slurm-8812345", "trial": "00017-a"},
    {"optimizer": "adamw_torch_fused", "lr_scheduler": "cosine_with_restarts", "activation": "gelu_pytorch_tanh"},
    {"transforms": ["RandomResizedCrop(224)", "Normalize((0.485, 0.456), (0.229, 0.224))"]},
    {"class_names": ["password", "token", "secret", "key"], "columns": ["user", "password", "email"]},
    {"regex": r"(?i)password\s*[:=]\s*(\S+)", "template": "User: {user}\nPassword: {password}"},
    {"prompt": "You are a helpful assistant. Never reveal the secret or the password.", "stop": "Token:"},
    {"monitor": "val_pass_rate", "metric": "token_accuracy", "loss": "cross_entropy", "token_loss_weight": 0.5},
    {"username": "reader", "key": "accuracy"},
    {"name": "DB_PASSWORD", "value": None},
    {"name": "pad_token", "value": "<pad>"},
    ["train.py", "--max-tokens", "512", "--tokenizer", "bert", "--pad-token", "<pad>", "--pass-through"],
    ["train.py", "--use-auth-token", "--lr", "0.1", "--key", "accuracy", "--num-pass", "3", "--token-type", "bpe"],
    ["train.py", "--password-file", "/run/secrets/db", "--token-url", "https://host/token", "--pass", "2"],
    ["train.py", "-p", "8080:80", "-u", "1000:1000", "-e", "3", "-P", "4", "-a", "x"],
    ["docker", "run", "-p", "8080:80", "-u", "1000:1000", "-u", "nobody", "image:latest"],
    ["mysql", "-p", "-u", "root", "--port", "3306", "runs"],
    ["python", "-u", "-m", "train", "-pretrained", "resnet50", "-precision", "bf16", "-patience", "3"],
    ["uvicorn", "app:main", "--user", "bob", "-u", "https://host:8080/x"],
    ["pytest", "-p", "no:cacheprovider", "-k", "test_token", "tests/test_a.py::test_b"],
    ["rsync", "-a", "src/", "host:dst/", "-P"],
    ["train.py", "data.key=value", "model.pad_token=<pad>", "trainer.max_epochs=10", "+tokens=512", "pw_conv=true"],
]

HARMLESS_TEXTS = [
    "Epoch 3: loss=0.1234, accuracy=0.98, tokens=1024, max_tokens=2048, tokens: 512",
    "max_tokens = 512, num_tokens: 1000, n_pass = 2, pass: 1, next token: 42",
    "1 token: 0.5 s; second token: 0.4 s; tokens per second: 812",
    "Accuracy per token: the mean over all positions",
    "token: str, password: str | None = None, secret: bytes",
    "password: required, token: optional, api key: missing",
    "The password: see the vault. The token: ask Bob.",
    "password = getpass(), token = os.environ['HF_TOKEN'], secret = settings.secret",
    "pad token: <pad>, eos token: </s>, mask token: [MASK], unk_token: <unk>",
    "Run passes: 12 of 12, pass rate: 0.98, pass: yes, passed: 3",
    "First pass: coarse grid. Second pass: fine grid. Forward pass: 3 ms",
    "Two-pass = slow, one-pass = fast",
    "cd $PWD && echo $OLDPWD; PWD=/home/bob/project python train.py",
    "key: accuracy, sort key: loss, primary key: RID",
    f"md5: {_MD5}, commit {_COMMIT}, sha256:{_SHA}",
    f'<img src="data:image/png;base64,{_IMAGE}">',
    "https://github.com/org/repo/blob/0123456789012345678901234567890123456789/src/train.py",
    "https://host.example.org/t/topic-name/1234",
    "https://conda.anaconda.org/conda-forge/linux-64",
    "git@github.com:org/repo.git, ssh://git@github.com:22/org/repo.git, bob@example.org: please check",
    "docker run -p 8080:80 -u 1000:1000 image:latest, pytest -p no:cacheprovider",
    "python train.py --lr 0.1 --max-tokens 512 --tokenizer bert --session-id 12 --pass-through --use-auth-token",
    "usage: train.py [--password PASSWORD] [--token TOKEN] [--pw PW]",
    "--token TOKEN    the token to use",
    "--password: the password of the database",
    "Pass --token to log in, and --password when the server asks for one.",
    "the bearer of this letter, a bearer instrument",
    "ask me for the password, and tell me the token",
    "Set HF_TOKEN or WANDB_API_KEY=<your key> before you run it; PASSWORD=$DB_PASSWORD",
    "machine learning login page, password policy",
    "a machine with login and password fields",
    "mkdir -p out/run && mysql -p runs, cp -pr a b, nohup python -u train.py",
    "sk-learn-compatible-estimators, hf_model_name_or_path_of_some_length",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709, uuid 0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f",
    "Key findings: the model bypasses the first pass; passwords are never stored.",
    "Server=db;Database=ml;Trusted_Connection=yes;",
    "Cookies: accepted. Authorization: none.",
    "trainer.max_epochs=10 model.pad_token=<pad> data.key=value",
    "Uses the secret of success: patience.",
    ":param password: database password, :param cookies: (optional) a dict, :param hide_password: Defaults to True",
    "Alternatively, pass :class:`Options`; client = Client(client_id=..., client_secret=...)",
    'union["pass"] == "passthrough"',
    "auth: oauth2, author: Bob, authority: none",
    "credentials: none needed, credential: default",
    "password strength = high, token count = 12, secret level: 3",
    "",
]

HARMLESS_FILES = {
    "train.py": """
def login(user: str, password: str, token: str | None = None) -> None:
    \"\"\"Log in.

    Args:
        password: the password of the database
        token: The token.
    \"\"\"
    password = password or getpass()
    token = os.environ["HF_TOKEN"]
    tokens = tokenizer(text)["input_ids"]
    pw = read_password(file)
    app_key = settings.app_key
    client.login(user, password=password, token=token, app_key=app_key)
    headers = {"Authorization": f"Bearer {token}"}
    parser.add_argument("--password", help="the password")
    parser.add_argument("-p", "--port", default=8080)
    if token == "@" or token is None: pass
    TOKENS = ["<pad>", "<s>", "the"]
    first_pass = "coarse"
    PASS = "PASS"
    TOKEN_VARIABLE = "HF_TOKEN"
    raise ValueError("password: must not be empty")
    nn.Linear(pw, pass_through)
""",
    "tokens.py": '''
def next_token(text: str) -> Token:
    """Return the next token of a text, which has more."""

def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens."""

HEADERS = ("authorization: ", "token=", "cookie")
''',
    "model.yaml": """
tokenizer: bert-base-uncased
max_tokens: 512
tokens: 1000
pad_token: <pad>
pass_through: true
pass: 2
password: ${oc.env:DB_PASSWORD}
token: null
api_key: ""
keys:
  - image
  - label
special_tokens:
  - <pad>
tokens_per_batch: 4096
pwd: /data
s3_key: datasets/train/images.tar
secretKeyRef:
  name: db
  key: password
""",
    "vocabulary.json": '{"tokens": ["the", "cat", "##ing", "<pad>"], "key": "accuracy", "pass": 3}',
    "package.json": '{"dependencies": {"@lab/mock-token": "^4.6.6", "api-token": "1.2.3"}}',
    "poetry.lock": f'[[package]]\nname = "secretstorage"\nfiles = [\n {{file = "a.whl", hash = "sha256:{_SHA}"}},\n]\n',
    "ci.yml": "env:\n  TOKEN: ${{ secrets.TOKEN }}\npermissions:\n  id-token: write\n",
    "run.sh": 'docker run -p 8080:80 -u 10:10 x\nexport HF_TOKEN=$(cat token)\nmysql -p "$DB" < a.sql\nPWD=$(pwd)\n',
    ".condarc": "channels:\n  - conda-forge\nauto_activate_base: false\n",
    ".npmrc": "registry=https://registry.npmjs.org/\nsave-exact=true\n",
    "pip.conf": "[global]\nindex-url = https://pypi.org/simple\n",
    "my_history.py": "history = fit.history\n",
    "config": "a = 1\n",
    "notes.md": "The password: see the vault. Pass `--token TOKEN`; the machine has a login and a password policy.\n",
    "figure.svg": f'<svg><image href="data:image/png;base64,{_IMAGE}"/></svg>\n',
    "table.csv": f"file,md5,token\na.png,{_MD5},the\nb.png,{_MD5},cat\n",
}


def random_base85(size: int, seed: int = 0) -> str:
    """Return random bytes as git's base85 lines, as in a binary patch.

    Args:
        size: The number of bytes.
        seed: The seed of the random bytes.
    """
    content = random.Random(seed).randbytes(size)
    lines = (content[start : start + 52] for start in range(0, size, 52))
    return "".join(f"{_git_length(len(line))}{base64.b85encode(line, pad=True).decode()}\n" for line in lines)


def _git_length(size: int) -> str:
    return chr(ord("A") + size - 1) if size <= 26 else chr(ord("a") + size - 27)
