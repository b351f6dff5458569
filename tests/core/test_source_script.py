"""Detection of the running script, in real processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
from repositories import Repository

from deriva_ml_core.plugins.builtin import source_script
from deriva_ml_core.script_detection import running_script

ASK = "import os; from deriva_ml_core.script_detection import running_script\n"
ASK += "def ask():\n    return running_script(os.environ)\n"


def run(*command: str, folder: Path, stdin: str = "", **environ: str) -> str:
    """Run a process and return the last line that it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=folder, env={**clean, **environ}, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip().splitlines()[-1]


def search_path(*folders: Path) -> str:
    """Return the module search path of this process, with these folders first."""
    return os.pathsep.join([*map(str, folders), *filter(None, sys.path)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with a module that calls running_script, and a script that uses it."""
    (tmp_path / "my work" / "pkg").mkdir(parents=True)
    root = tmp_path / "my work"
    (root / "asking.py").write_text(ASK)
    (root / "train.py").write_text(
        "from asking import ask\ndef main():\n    print(ask())\nif __name__ == '__main__':\n    main()\n"
    )
    (root / "pkg" / "__init__.py").write_text("")
    (root / "pkg" / "__main__.py").write_text("import train; train.main()\n")
    (root / "pkg" / "inner.py").write_text("import train; train.main()\n")
    return root


def test_script(folder: Path) -> None:
    """``python x.py`` gives that file's full path, also after a change of directory."""
    assert run(sys.executable, "train.py", folder=folder) == str(folder / "train.py")
    (folder / "move.py").write_text("import os; os.chdir('/')\nimport train; train.main()\n")
    assert run(sys.executable, "move.py", folder=folder) == str(folder / "move.py")


def test_module(folder: Path) -> None:
    """``python -m package`` and ``python -m package.x`` give the module's file."""
    assert run(sys.executable, "-m", "pkg", folder=folder) == str(folder / "pkg" / "__main__.py")
    assert run(sys.executable, "-m", "pkg.inner", folder=folder) == str(folder / "pkg" / "inner.py")


def test_link_is_not_resolved(folder: Path, tmp_path: Path) -> None:
    """A script that is started through a link is recorded by the link's path."""
    (tmp_path / "link.py").symlink_to(folder / "train.py")
    assert run(sys.executable, "link.py", folder=tmp_path, PYTHONPATH=str(folder)) == str(tmp_path / "link.py")


def test_under_a_profiler(folder: Path) -> None:
    """Under a module of the standard library, the script that it runs is detected."""
    assert run(sys.executable, "-m", "cProfile", "-o", "prof", "train.py", folder=folder) == str(folder / "train.py")


def test_python_c(folder: Path) -> None:
    """With ``python -c``, the first of the user's files that is called is detected."""
    assert run(sys.executable, "-c", "import train; train.main()", folder=folder) == str(folder / "train.py")


def test_console_script(folder: Path, tmp_path: Path) -> None:
    """Behind a console script, the user's module is detected."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python, stub = tmp_path / "venv/bin/python", tmp_path / "venv/bin/my-train"
    stub.write_text("import train; train.main()\n")
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    assert run(str(python), str(stub), folder=tmp_path, PYTHONPATH=paths) == str(folder / "train.py")


def test_script_without_suffix(folder: Path) -> None:
    """A user's script needs no ``.py``."""
    (folder / "go").write_text("import train; train.main()\n")
    assert run(sys.executable, "go", folder=folder) == str(folder / "go")


def test_installed_package_is_ignored(folder: Path, tmp_path: Path) -> None:
    """The user's file that a module of site-packages calls is detected before that module."""
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "tool.py").write_text(
        "import sys, asking\nif sys.argv[1:]:\n    import train; train.main()\nelse:\n    print(asking.ask())\n"
    )
    (site / "asking.py").write_text(ASK)
    assert run(sys.executable, "-m", "tool", folder=tmp_path, PYTHONPATH=search_path(site)) == str(site / "tool.py")
    both = search_path(site, folder)
    assert run(sys.executable, "-m", "tool", "x", folder=tmp_path, PYTHONPATH=both) == str(folder / "train.py")


def test_interactive_session(folder: Path) -> None:
    """An interactive session has no file, although it calls modules that have one."""
    assert run(sys.executable, "-i", "-q", folder=folder, stdin="import train\ntrain.main()\n") == "None"
    assert run(sys.executable, "-", folder=folder, stdin=f"{ASK}print(ask())\n") == "None"


def test_spawned_worker(folder: Path) -> None:
    """A process that multiprocessing spawned has the same script."""
    (folder / "parent.py").write_text(
        "import multiprocessing, asking\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(asking.ask))\n"
    )
    assert run(sys.executable, "parent.py", folder=folder) == str(folder / "parent.py")


@pytest.mark.parametrize("options", [(), ("-n", "1"), ("--rootdir", "..")])
def test_under_pytest(folder: Path, options: tuple[str, ...]) -> None:
    """The test's file is detected, also from a fixture, a module of the user, and a worker process."""
    (folder / "conftest.py").write_text(
        "import pytest, asking\n@pytest.fixture\ndef found():\n    return asking.ask()\n"
    )
    tests = folder / "tests" / "test_it.py"
    tests.parent.mkdir()
    tests.write_text(
        "import asking, threading, pathlib\n"
        "def test_it(found):\n"
        "    inside = []\n"
        "    thread = threading.Thread(target=lambda: inside.append(asking.ask()))\n"
        "    thread.start(); thread.join()\n"
        "    assert {found, asking.ask(), *inside} == {pathlib.Path(__file__)}\n"
    )
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests")
    assert "1 passed" in run(*command, folder=folder, PYTHONPATH=str(folder))


def test_this_test() -> None:
    """In this test, the file is this one."""
    assert running_script(os.environ) == Path(__file__)


def test_process_started_by_a_test(folder: Path) -> None:
    """A script is detected although it inherits pytest's variables."""
    found = run(sys.executable, "train.py", folder=folder, PYTEST_CURRENT_TEST="tests/test_it.py::test_it (call)")
    assert found == str(folder / "train.py")


def test_standard_library_is_ignored(folder: Path) -> None:
    """A module of the standard library is not the user's file."""
    assert Path(sysconfig.get_path("stdlib")).is_dir()
    found = run(sys.executable, "-m", "timeit", "-n1", "-r1", "import asking; print(asking.ask())", folder=folder)
    assert found  # timeit prints its own last line
    assert run(sys.executable, "-m", "runpy", "train", folder=folder) == str(folder / "train.py")


def test_plugin_detects_a_script(repository: Repository) -> None:
    """A script's source is what git reports."""
    script = repository.write("train.py", "1")
    commit = repository.commit()
    source = source_script.detect_source(script, {})
    assert (source.kind, source.url) == ("script", f"https://github.com/org/repo/blob/{commit}/train.py")


def test_plugin_without_a_script(tmp_path: Path) -> None:
    """In an interactive session, the source is empty with one warning, or an error if clean code is required."""
    found = json.loads(run(sys.executable, "-i", "-q", folder=tmp_path, stdin=DETECT))
    assert (found["kind"], found["url"], found["checksum"]) == ("interactive", "", "")
    assert len(found["warnings"]) == 1
    assert found["warnings"][0].startswith("An interactive session has no file")
    refused = json.loads(run(sys.executable, "-i", "-q", folder=tmp_path, stdin=DETECT, DERIVA_ML_REQUIRE_CLEAN="true"))
    assert refused["error"].startswith("NotReproducible: An interactive session has no file")


# programs that are no file of the user

DETECT = """
import json, os, warnings
from deriva_ml_core.plugins.builtin import source_script
from deriva_ml_core.script_detection import running_script

def detect():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = source_script.detect_source(running_script(os.environ), os.environ)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    return found.model_dump(mode="json") | {"warnings": [str(each.message) for each in caught]}

print(json.dumps(detect()))
"""
PROGRAM_HASH = hashlib.sha1(b"blob %d\0" % len(DETECT) + DETECT.encode()).hexdigest()


def detect(*command: str, folder: Path, stdin: str = "", **environ: str) -> dict[str, Any]:
    """Return the source that a program detects for itself."""
    found: dict[str, Any] = json.loads(run(*command, folder=folder, stdin=stdin, **environ))
    return found


def install(site: Path, origin: dict[str, Any] | None = None) -> None:
    """Install a distribution with a program, as pip does."""
    metadata = site / "my_tool-1.2+local.dist-info"
    metadata.mkdir(parents=True)
    (site / "mytool").mkdir()
    (site / "mytool" / "__init__.py").touch()
    (site / "mytool" / "cli.py").write_text(
        f"def main():\n    exec({DETECT!r}, globals())\nif __name__ == '__main__':\n    main()\n"
    )
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: My_Tool\nVersion: 1.2+local\n")
    (metadata / "RECORD").write_text("mytool/__init__.py,,\nmytool/cli.py,,\n")
    (metadata / "entry_points.txt").write_text("[console_scripts]\nmy-tool = mytool.cli:main\n")
    if origin is not None:
        (metadata / "direct_url.json").write_text(json.dumps(origin))


@pytest.mark.parametrize("way", ["module", "command"])
def test_installed_program(tmp_path: Path, way: str) -> None:
    """A program of an installed distribution is recorded by its name, version, file and hash, without a warning."""
    site = tmp_path / "lib" / "site-packages"
    install(site)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    stub = tmp_path / "venv/bin/my-tool"
    stub.write_text("import sys\nfrom mytool.cli import main\nsys.exit(main())\n")
    command = ("-m", "mytool.cli") if way == "module" else (str(stub),)
    found = detect(str(tmp_path / "venv/bin/python"), *command, folder=tmp_path, PYTHONPATH=search_path(site))
    content = (site / "mytool" / "cli.py").read_bytes()
    assert found == {
        "kind": "distribution",
        "url": "pkg:pypi/my-tool@1.2%2Blocal#mytool/cli.py",
        "version": "1.2+local",
        "checksum": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        "path": str(site / "mytool" / "cli.py"),
        "repository": None,
        "dirty": False,
        "warnings": [],
    }


def test_program_installed_from_a_commit(tmp_path: Path) -> None:
    """A program that pip installed from git is recorded by its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    origin = {"url": "https://github.com/org/tool.git", "vcs_info": {"vcs": "git", "commit_id": commit}}
    install(tmp_path / "site-packages", origin)
    found = detect(
        sys.executable, "-m", "mytool.cli", folder=tmp_path, PYTHONPATH=search_path(tmp_path / "site-packages")
    )
    assert (found["url"], found["warnings"]) == (f"https://github.com/org/tool/tree/{commit}", [])


def test_program_installed_from_a_folder(tmp_path: Path) -> None:
    """A program that was installed from a folder is recorded with a warning that names the folder."""
    install(tmp_path / "site-packages", {"url": "file:///home/ada/tool", "dir_info": {}})
    found = detect(
        sys.executable, "-m", "mytool.cli", folder=tmp_path, PYTHONPATH=search_path(tmp_path / "site-packages")
    )
    assert (found["url"], found["kind"]) == ("pkg:generic/my-tool@1.2%2Blocal#mytool/cli.py", "distribution")
    (warning,) = found["warnings"]
    assert warning.startswith("my-tool 1.2+local was installed from file:///home/ada/tool")


def test_zipapp(repository: Repository) -> None:
    """A zipapp is recorded as the archive, with its URL if it is committed."""
    archive = repository.root / "app.pyz"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("__main__.py", DETECT)
    commit = repository.commit()
    found = detect(sys.executable, "app.pyz", folder=repository.root)
    assert (found["kind"], found["path"], found["warnings"]) == ("zipapp", str(archive), [])
    assert found["url"] == f"https://github.com/org/repo/blob/{commit}/app.pyz"
    assert found["checksum"] == repository.hash(archive)


@pytest.mark.parametrize(
    "options", [("-c", DETECT), (f"-Bc{DETECT}",), ("-X", "dev", "-W", "ignore", "-c", DETECT, "-x")]
)
def test_command_line_program(tmp_path: Path, options: tuple[str, ...]) -> None:
    """``python -c`` is recorded by the hash of its text, with a warning."""
    found = detect(sys.executable, *options, folder=tmp_path)
    assert (found["kind"], found["url"], found["checksum"]) == ("command", "", PROGRAM_HASH)
    (warning,) = found["warnings"]
    assert warning.startswith("The program is an argument of `python -c` and in no file")


@pytest.mark.parametrize("options", [(), ("-",)])
def test_program_from_a_pipe(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A program from a pipe is recorded as such, with a warning; its text is gone."""
    found = detect(sys.executable, *options, folder=tmp_path, stdin=DETECT)
    assert (found["kind"], found["url"], found["checksum"]) == ("stdin", "", "")
    (warning,) = found["warnings"]
    assert warning.startswith("The program was read from the standard input")


@pytest.mark.skipif(not Path("/proc/self/fd/0").exists(), reason="this system does not name the standard input")
def test_program_from_a_file_as_standard_input(repository: Repository) -> None:
    """``python < train.py`` is recorded like ``python train.py``; a deleted file by its hash."""
    script = repository.write("train.py", DETECT)
    commit = repository.commit()
    found = detect("sh", "-c", f"{sys.executable} < train.py", folder=repository.root)
    assert (found["kind"], found["path"], found["warnings"]) == ("script", str(script), [])
    assert found["url"] == f"https://github.com/org/repo/blob/{commit}/train.py"
    lost = detect("sh", "-c", f"exec < train.py; rm train.py; {sys.executable} -", folder=repository.root)
    assert (lost["kind"], lost["path"], lost["checksum"]) == ("stdin", None, PROGRAM_HASH)


def test_warning_points_at_the_users_line(folder: Path) -> None:
    """The warning shows the line of the user's script."""
    (folder / "warned.py").write_text(
        "from deriva_ml_core.workflow import Workflow\n\n\nworkflow = Workflow(name='a', workflow_type='Training')\n"
    )
    done = subprocess.run([sys.executable, "warned.py"], cwd=folder, capture_output=True, text=True, check=True)
    assert f"{folder / 'warned.py'}:4: DerivaMLWarning" in done.stderr
    assert done.stderr.count("Warning") == 1
