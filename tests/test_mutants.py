"""Mutants: one-line changes of the modules that keep records safe, most of which the modules' own tests must notice.

Each module has an equal part of an hour. ``pytest -m long tests/test_mutants.py -rP`` prints the mutants that survived.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TOTAL_SECONDS = 3600
"""Seconds for all modules. DERIVA_ML_MUTANT_SECONDS sets another time."""

MODULES = {
    "_concurrency/fork_safe_lock.py": "core/test_fork_safe_lock.py",
    "_files/atomic.py": "core/test_atomic.py",
    "_files/json_lines.py": "core/test_json_lines.py",
    "_files/partial_download.py": "core/test_partial_download.py",
    "assets/staging.py": "core/test_staging.py",
    "assets/upload.py": "core/test_upload.py",
    "backends/embedded/database.py": "core/test_embedded_database.py",
    "backends/folder/durability.py": "core/test_folder_store.py",
    "backends/folder/store.py": "core/test_folder_store.py",
    "execution/exit_status.py": "core/test_exit_status.py",
    "execution/outputs.py": "core/test_outputs.py",
    "execution/run_lock.py": "core/test_resume_execution.py",
    "journal/journal.py": "core/test_journal.py",
    "journal/process_identity.py": "core/test_process_identity.py",
    "journal/state.py": "core/test_journal.py",
    "training/checkpoints.py": "integrations/test_monitor.py",
}
"""The test file of each module, below ``src/deriva_ml_core`` and ``tests``."""

MIN_NOTICED = 0.35
"""Share of the mutants in covered code that the tests must notice. Many others change a message or a default.

In a box of 90 seconds a module, the lowest share was 0.41, of ``journal/state.py``, which other test files test too.
"""

SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/deriva_ml_core/{module}"]
pytest_add_cli_args_test_selection = ["tests/{tests}"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
use_git_change_detection = false
"""


def copy_project(folder: Path, module: str, tests: str) -> None:
    """Copy what mutmut needs: it writes the mutants next to the code."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = SETTINGS.format(module=module, tests=tests)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings)
    (folder / "mutants" / "src" / "integrations").mkdir(parents=True)  # Python ignores folders that appear later


def try_mutants(folder: Path, seconds: float) -> tuple[bool, str]:
    """Run mutmut for some seconds at most; returns whether it ended by itself, and the end of its output."""
    paths = [str(folder / "mutants" / "src"), str(folder / "mutants" / "src" / "integrations")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(os.cpu_count() or 1)]
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        has_ended = True
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            has_ended = False
            os.killpg(process.pid, signal.SIGKILL)  # the session of this process
            process.wait()
        return has_ended, (folder / "output").read_text(errors="replace")[-2000:]


def read_results(folder: Path, module: str) -> dict[str, str]:
    """Return the verdict on each mutant that was tried."""
    file = folder / "mutants" / "src" / "deriva_ml_core" / f"{module}.meta"
    codes = json.loads(file.read_text())["exit_code_by_key"] if file.exists() else {}
    return {name: _verdict(code) for name, code in codes.items() if code is not None}


def _verdict(code: int) -> str:
    return {0: "survived", 1: "killed", 3: "killed", 5: "not covered", 33: "not covered"}.get(code, "hung or crashed")


@pytest.mark.long
@pytest.mark.timeout(TOTAL_SECONDS)
@pytest.mark.skipif(find_spec("mutmut") is None, reason="mutmut is in the extra 'dev'")
@pytest.mark.parametrize("module", MODULES)
def test_most_mutants_are_noticed(module: str, tmp_path: Path) -> None:
    """The tests of a module notice most one-line changes of it."""
    copy_project(tmp_path, module, MODULES[module])
    seconds = float(os.environ.get("DERIVA_ML_MUTANT_SECONDS", TOTAL_SECONDS)) / len(MODULES)
    has_ended, output = try_mutants(tmp_path, seconds)
    verdicts = read_results(tmp_path, module)
    survivors = [name for name, verdict in verdicts.items() if verdict == "survived"]
    covered = [name for name, verdict in verdicts.items() if verdict != "not covered"]
    print(f"{module}: {dict(Counter(verdicts.values()))}")
    print(*sorted(re.sub(r".*\.x", "", name) for name in survivors), sep="\n")
    if not covered and not has_ended:
        pytest.skip(f"the machine is too busy to try a mutant within {seconds:g} seconds")
    assert covered, f"no mutant was tried:\n{output}"
    assert len(covered) - len(survivors) >= MIN_NOTICED * len(covered)
