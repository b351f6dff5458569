"""Detection of the running script, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from repositories import Repository

from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
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
    """A module of site-packages that runs with ``-m`` is ignored; the user's file that it calls is detected."""
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "tool.py").write_text(
        "import sys, asking\nif sys.argv[1:]:\n    import train; train.main()\nelse:\n    print(asking.ask())\n"
    )
    (site / "asking.py").write_text(ASK)
    assert run(sys.executable, "-m", "tool", folder=tmp_path, PYTHONPATH=str(site)) == "None"
    both = os.pathsep.join([str(site), str(folder)])
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


def test_plugin_without_a_script() -> None:
    """Without a file, the source is empty with one warning, or an error if clean code is required."""
    with pytest.warns(DerivaMLWarning, match="interactive session has no file.*script") as caught:
        source = source_script.detect_source(None, {})
    assert (len(caught), source.kind, source.url, source.checksum) == (1, "interactive", "", "")
    with pytest.raises(NotReproducible, match="interactive"):
        source_script.detect_source(None, {"DERIVA_ML_REQUIRE_CLEAN": "true"})


def test_warning_points_at_the_users_line(folder: Path) -> None:
    """The warning shows the line of the user's script."""
    (folder / "warned.py").write_text(
        "from deriva_ml_core.workflow import Workflow\n\n\nworkflow = Workflow(name='a', workflow_type='Training')\n"
    )
    done = subprocess.run([sys.executable, "warned.py"], cwd=folder, capture_output=True, text=True, check=True)
    assert f"{folder / 'warned.py'}:4: DerivaMLWarning" in done.stderr
    assert done.stderr.count("Warning") == 1
