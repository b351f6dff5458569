"""The patch of uncommitted changes: no secrets in any file, and no files from outside the project."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from repositories import Repository, make_repository
from secret_corpus import HARMLESS_FILES, SECRET_FILES

from deriva_ml_core.errors import DerivaMLWarning
from deriva_ml_core.git import uncommitted_patch

TOKEN = "ghp_" + "a1B2" * 9


@pytest.fixture
def home_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A home folder that is a git repository, with settings in a commit and private files that are not."""
    repository = make_repository(tmp_path / "home")
    monkeypatch.setenv("HOME", str(repository.root))
    repository.write(".gitconfig", "[user]\n\tname = Ada\n\temail = ada@example.org\n")
    repository.commit()
    repository.write(".gitconfig", "[user]\n\tname = Bob\n\temail = ada@example.org\n")
    repository.write("diary.txt", "a private thought\n")
    repository.write("Documents/letter.txt", "a private letter\n")
    repository.write(".bash_history", "ls\n")
    repository.write(".config/tool/settings.toml", "a private setting\n")
    (repository.root / ".ssh").mkdir()
    repository.write(".ssh/known_hosts", "host.example.org a private host\n")
    return repository


def patch_text(repository: Repository, script: Path | None = None) -> str:
    """Return the patch, without the warnings about files that are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DerivaMLWarning)
        return uncommitted_patch(repository.root, {}, script=script).decode()


def test_files_with_secrets_are_left_out(repository: Repository) -> None:
    """Each file of the corpus is left out and named; each harmless one is in the patch."""
    for number, case in enumerate(SECRET_FILES):
        repository.write(f"secret{number}/{case.path}", case.content)
    for path, content in HARMLESS_FILES.items():
        repository.write(f"harmless/{path}", content)
    patch = patch_text(repository)
    included = {line.rpartition(" b/")[2] for line in patch.splitlines() if line.startswith("diff --git ")}
    assert included == {f"harmless/{path}" for path in HARMLESS_FILES}


def test_old_secret_in_a_binary_file_is_detected(repository: Repository) -> None:
    """A patch of a binary file holds its old content too, so a secret in it is detected."""
    repository.write("state.bin", b"\0\1 " + TOKEN.encode())
    repository.commit()
    repository.write("state.bin", b"\0\2")
    with pytest.warns(DerivaMLWarning, match=r"state\.bin seems to hold a secret"):
        patch = uncommitted_patch(repository.root, {})
    assert b"diff --git" not in patch


def test_random_bytes_are_no_secret(repository: Repository) -> None:
    """Noise with the names of secrets in it, in the file or in its base85, does not leave a binary file out."""
    repository.write("model.bin", b"\0")
    repository.commit()
    noise = random.Random(0).randbytes(2**20)
    repository.write("model.bin", noise + b'\0q?SiG=\xe9z-OTP=u\0\xfftoken="\x01\x02\x03"\0://a\x90:b\x91@\0' + noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch = uncommitted_patch(repository.root, {})
    assert b"diff --git a/model.bin b/model.bin" in patch


def test_random_text_is_no_secret(repository: Repository) -> None:
    """A file with a binary patch in it is recorded."""
    from secret_corpus import random_base85

    repository.write("change.patch", random_base85(200_000))
    assert "+++ b/change.patch" in patch_text(repository)


def test_folders_of_tools_are_left_out(repository: Repository) -> None:
    """Untracked files in folders such as ``.cache`` are counted, not included; those in ``.github`` are included."""
    repository.write(".cache/tool/one.txt", "1\n")
    repository.write(".cache/tool/two.txt", "2\n")
    repository.write("src/.vscode/settings.json", "{}\n")
    repository.write(".github/workflows/ci.yml", "on: push\n")
    repository.write("train.py", "x = 1\n")
    patch = patch_text(repository)
    assert "+++ b/.github/workflows/ci.yml" in patch
    assert "+++ b/train.py" in patch
    assert "one.txt" not in patch
    assert '# untracked and left out (2 files in the folder of a tool): ".cache/"\n' in patch
    assert '# untracked and left out (1 file in the folder of a tool): "src/.vscode/"\n' in patch


def test_home_folder_with_a_project(home_repository: Repository) -> None:
    """In a home folder, untracked files of the script's project are included; no other one is included or named."""
    home_repository.write("work/project/pyproject.toml", "[project]\n")
    home_repository.write("work/project/data/list.txt", "a.png\n")
    script = home_repository.write("work/project/src/train.py", "x = 1\n")
    home_repository.write("work/notes.txt", "a private note\n")
    patch = patch_text(home_repository, script)
    for path in (
        ".gitconfig",
        "work/project/pyproject.toml",
        "work/project/data/list.txt",
        "work/project/src/train.py",
    ):
        assert f"+++ b/{path}\n" in patch
    for private in ("private", "diary", "letter", ".ssh", ".bash_history", "notes.txt", ".config"):
        assert private not in patch
    assert '# untracked files outside of the project are not part of the patch: only "work/project/" is\n' in patch


def test_home_folder_without_a_project(home_repository: Repository) -> None:
    """Without a file that marks a project, only Python files below the script's folder are included."""
    script = home_repository.write("Documents/train.py", "x = 1\n")
    home_repository.write("Documents/nets/unet.py", "y = 1\n")
    patch = patch_text(home_repository, script)
    assert "+++ b/Documents/train.py\n" in patch
    assert "+++ b/Documents/nets/unet.py\n" in patch
    for private in ("private", "diary", "letter", ".ssh"):
        assert private not in patch


def test_script_in_the_home_folder(home_repository: Repository) -> None:
    """A home folder is never a project, also if a file marks it as one: only its own Python files are included."""
    home_repository.write("pyproject.toml", "[project]\n")
    script = home_repository.write("train.py", "x = 1\n")
    home_repository.write("helper.py", "y = 1\n")
    home_repository.write("Documents/other.py", "z = 1\n")
    patch = patch_text(home_repository, script)
    assert "+++ b/train.py\n" in patch
    assert "+++ b/helper.py\n" in patch
    for private in ("private", "diary", "letter", ".ssh", "other.py", "pyproject"):
        assert private not in patch


def test_script_outside_of_the_home_repository(home_repository: Repository, tmp_path: Path) -> None:
    """A script elsewhere takes no untracked file of the home folder along."""
    patch = patch_text(home_repository, tmp_path / "elsewhere" / "train.py")
    assert "+++ b/.gitconfig\n" in patch
    assert "private" not in patch
    assert "diary" not in patch
