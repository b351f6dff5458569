"""Detect which of the user's files is running."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from deriva_ml_core._frames import is_own_module

__all__ = ["running_script"]


def running_script(environ: Mapping[str, str]) -> Path | None:
    """Find the user's file that is running.

    Args:
        environ: Environment variables; under pytest, ``PYTEST_CURRENT_TEST`` names the test's file.

    Returns:
        The file of ``python x.py`` or ``python -m package.x``; under pytest, the test file. Otherwise, as with a
        console script, the outermost file in the call stack that belongs to the user: not to the standard library,
        site-packages or this project. The path is absolute, with symlinks unresolved. None in an interactive session
        or a notebook.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec else "__main__"
    if (file := _existing_file(getattr(main, "__file__", None))) and _is_user_file(file, name):
        return file
    if _is_interactive():
        return None
    files = list(_user_files_in_stack(sys._getframe(1)))
    test = environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    if test and "pytest" in sys.modules:
        return _find_test_file(test, files) or next(iter(files), None)
    return next(iter(files), None)


def _is_interactive() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None or hasattr(sys, "ps1")


def _existing_file(name: object) -> Path | None:
    file = Path(os.path.abspath(name)) if isinstance(name, str) else None  # noqa: PTH100 - links stay unresolved
    return file if file and file.is_file() else None


def _user_files_in_stack(frame: FrameType | None) -> Iterator[Path]:
    """Yield the user's files in the call stack, the outermost first."""
    frames = []
    while frame:
        frames.append(frame)
        frame = frame.f_back
    for caller in reversed(frames):
        file = _existing_file(caller.f_code.co_filename)
        if file and _is_user_file(file, str(caller.f_globals.get("__name__"))):
            yield file


def _find_test_file(test: str, files: list[Path]) -> Path | None:
    # the name is relative to pytest's root folder, which is the current folder or one of its parents
    candidates = (folder / test for folder in (Path.cwd(), *Path.cwd().parents))
    return next((file for file in files if file.as_posix().endswith(f"/{test}")), None) or next(
        filter(Path.is_file, candidates), None
    )


def _is_user_file(file: Path, module: str) -> bool:
    if is_own_module(module) or {"site-packages", "dist-packages"}.intersection(file.parts):
        return False
    if file.parent in _script_folders() and file.suffix != ".py":
        return False
    return not any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _script_folders() -> set[Path]:
    return {Path(sysconfig.get_path("scripts")), Path(sys.executable).parent, Path(site.getuserbase()) / "bin"}
