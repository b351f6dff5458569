"""Detect which of the user's files is running, or which program if it is none of these."""

from __future__ import annotations

import os
import site
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType

from deriva_ml_core._frames import is_own_module
from deriva_ml_core.paths import find_current_folder, leads_nowhere

__all__ = ["is_installed_file", "read_program_text", "running_script"]


def running_script(environ: Mapping[str, str]) -> Path | None:
    """Find the user's file that is running.

    Args:
        environ: Environment variables; under pytest, ``PYTEST_CURRENT_TEST`` names the test's file.

    Returns:
        The file of ``python x.py`` or ``python -m package.x``; under pytest, the test file. Otherwise, as with a
        console script, the outermost file in the call stack that belongs to the user: not to the standard library,
        site-packages or this project. If there is none, the file of an installed program, the archive of a zipapp, or
        the file that is the standard input of ``python``. The path is absolute, with symlinks unresolved. None in an
        interactive session or a notebook, and for a program that is in no file.
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
    return next(iter(files), None) or _program_file(main)


def is_installed_file(file: Path) -> bool:
    """Whether a file belongs to an installed package, or is an installed program."""
    return bool({"site-packages", "dist-packages"}.intersection(file.parts)) or _is_program_stub(file)


def read_program_text() -> tuple[str, bytes | None]:
    """Return what a program without a file is, and its text if that can still be read.

    Returns:
        ``command`` for ``python -c``, ``stdin`` for a program from the standard input, or else ``interactive``; and the
        text, which is None for a session or a pipe.
    """
    option, value = _parse_python_options(sys.orig_argv)
    if _is_interactive() or option not in ("-c", "-"):
        return "interactive", None
    if option == "-c":
        return "command", os.fsencode(value)
    try:
        status = os.fstat(0)
        return "stdin", os.pread(0, status.st_size, 0) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return "stdin", None


def _parse_python_options(arguments: list[str]) -> tuple[str, str]:
    """Return how a command line of Python names the program, and its name or text.

    Returns:
        ``-c`` and the text, ``-m`` and the module, an empty text and the file, or ``-`` for the standard input.
    """
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "-":
            break
        if not argument.startswith("-"):
            return "", argument
        if argument.startswith("--"):
            if argument == "--check-hash-based-pycs":
                next(rest, None)
            continue
        for end, letter in enumerate(argument[1:], 2):
            if letter in "cm":
                return f"-{letter}", argument[end:] or next(rest, "")
            if letter in "WX":  # their values can have any letters
                if end == len(argument):
                    next(rest, None)
                break
    return "-", ""


def _program_file(main: ModuleType | None) -> Path | None:
    """Return the file of a program that is no file of the user."""
    name = getattr(main, "__file__", None)
    if not isinstance(name, str) or name == "<stdin>":
        return _stdin_file()
    if leads_nowhere(name):
        return None
    path = Path(os.path.abspath(name))  # noqa: PTH100 - links stay unresolved
    if not path.exists():
        return next((parent for parent in path.parents if parent.is_file()), None)  # the archive of a zipapp
    spec = getattr(main, "__spec__", None)
    if is_own_module(spec.name if spec else "__main__"):
        return None
    if _is_program_stub(path):
        return _entry_point_file(path)
    return path if is_installed_file(path) else None


def _entry_point_file(stub: Path) -> Path | None:
    """Return the file of the module that an installed command calls; the command itself if it calls none."""
    from importlib.metadata import entry_points

    for entry_point in entry_points(group="console_scripts", name=stub.name):
        if is_own_module(entry_point.module):
            return None
        return _existing_file(getattr(sys.modules.get(entry_point.module), "__file__", None)) or stub
    return stub


def _stdin_file() -> Path | None:
    """Return the file that Python reads the program from as its standard input."""
    if _parse_python_options(sys.orig_argv)[0] != "-":
        return None
    try:
        file = Path("/proc/self/fd/0").readlink()  # on systems without it, only the text is known
        return file if stat.S_ISREG(file.stat().st_mode) and os.path.samestat(file.stat(), os.fstat(0)) else None
    except OSError:
        return None


def _is_interactive() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None or hasattr(sys, "ps1")


def _existing_file(name: object) -> Path | None:
    if not isinstance(name, str) or leads_nowhere(name):
        return None
    file = Path(os.path.abspath(name))  # noqa: PTH100 - links stay unresolved
    return file if file.is_file() else None


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
    here = find_current_folder()
    candidates = (folder / test for folder in (here, *here.parents)) if here else ()
    return next((file for file in files if file.as_posix().endswith(f"/{test}")), None) or next(
        filter(Path.is_file, candidates), None
    )


def _is_user_file(file: Path, module: str) -> bool:
    if is_own_module(module) or is_installed_file(file):
        return False
    return not any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _is_program_stub(file: Path) -> bool:
    return file.parent in _script_folders() and file.suffix != ".py"


def _script_folders() -> set[Path]:
    return {Path(sysconfig.get_path("scripts")), Path(sys.executable).parent, Path(site.getuserbase()) / "bin"}
