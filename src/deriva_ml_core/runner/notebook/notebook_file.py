"""A notebook before it runs: its file read, its kernel found, and refused in plain words where it cannot run."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deriva_ml_core.errors import ConfigurationError

__all__ = ["Kernel", "Notebook", "read_notebook"]

PACKAGE_PREFIX = "deriva_ml"
"""How the names of this project's packages begin that a notebook imports."""

CONFIG_FUNCTION = "run_notebook"
"""What a notebook calls for its configuration."""

DEFAULT_KERNEL = "python3"

_IMPORT_PATTERN = re.compile(r"^\s*(?:from|import)\s+([A-Za-z_]\w*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is installed.

    Args:
        name: By which it is asked for.
        language: Of the cells that it runs.
    """

    name: str
    language: str


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook that can run.

    Args:
        path: Its file, absolute.
        content: What is in it, in the newest of nbformat's versions.
        kernel: What runs it.
    """

    path: Path
    content: Mapping[str, Any]
    kernel: Kernel

    @property
    def can_create_execution(self) -> bool:
        """Whether its cells may make an execution: they name this project, or run code of the user's that may do so."""
        return (
            self._contains(PACKAGE_PREFIX)
            or self._contains("%run")
            or any(map(self._is_user_package, self._imported_packages()))
        )

    @property
    def has_configuration(self) -> bool:
        """Whether its code asks for a configuration, which overrides may speak of."""
        return self._contains(CONFIG_FUNCTION)

    def _contains(self, word: str) -> bool:
        return any(word in source for source in self._code_sources())

    def _code_sources(self) -> Iterator[str]:
        yield from (cell["source"] for cell in self.content["cells"] if cell["cell_type"] == "code")

    def _imported_packages(self) -> set[str]:
        """The packages that its code imports, as its lines say it: a cell with a magic command is no Python."""
        return {found[1] for source in self._code_sources() for found in _IMPORT_PATTERN.finditer(source)}

    def _is_user_package(self, package: str) -> bool:
        """Whether a package is the user's own: neither the standard library's nor an installed one."""
        folder = self.path.parent
        if (folder / f"{package}.py").exists() or (folder / package).is_dir():
            return True
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):
            return False
        if spec is None or spec.origin in (None, "built-in", "frozen"):
            return False
        installed = {"site-packages", "dist-packages"}.intersection(Path(spec.origin).parts)
        return not installed and not Path(spec.origin).is_relative_to(sysconfig.get_path("stdlib"))


def read_notebook(file: Path, kernel: str | None = None) -> Notebook:
    """Read a notebook and find its kernel.

    Args:
        file: The notebook.
        kernel: The name of the kernel to run it with, instead of the one that it names.

    Raises:
        ConfigurationError: The file is no notebook, or the kernel is not installed.
    """
    path = file.expanduser().absolute()
    content = _load_notebook(path)
    named = content["metadata"].get("kernelspec")
    own = str(named.get("name") or "") if isinstance(named, dict) else ""
    return Notebook(path, MappingProxyType(content), _find_kernel(kernel or own or DEFAULT_KERNEL, path))


def _load_notebook(path: Path) -> dict[str, Any]:
    import warnings

    import nbformat

    if path.suffix != ".ipynb":
        raise ConfigurationError(f"{path} is no notebook: its name does not end in .ipynb.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no notebook: it is no text in UTF-8.") from error
    except OSError as error:
        raise ConfigurationError(f"The notebook {path} cannot be read: {error.strerror}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without ids, in notebooks of older versions
            content = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(content)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigurationError(f"{path} is no notebook: {said}") from error
    return dict(content)


def _find_kernel(name: str, path: Path) -> Kernel:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        return Kernel(name, str(manager.get_kernel_spec(name).language))
    except NoSuchKernel as error:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise ConfigurationError(
            f"The kernel {name!r} of {path} is not installed; there is {known}. Name one of these with --kernel, or "
            f"install it: `python -m ipykernel install --sys-prefix --name {name}` in its environment."
        ) from error
