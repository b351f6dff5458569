"""Read and check a notebook before it runs, and find its kernel."""

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
from deriva_ml_core.paths import expand_home, to_absolute_path

__all__ = ["Kernel", "Notebook", "read_notebook"]

PACKAGE_PREFIX = "deriva_ml"
"""Prefix of this project's packages in the imports of a notebook."""

CONFIG_FUNCTION = "run_notebook"
"""Function that a notebook calls to get its configuration."""

DEFAULT_KERNEL = "python3"

_IMPORT_PATTERN = re.compile(r"^\s*(?:from|import)\s+([A-Za-z_]\w*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """An installed kernel.

    Args:
        name: The name of its kernel spec.
        language: The programming language of its cells.
    """

    name: str
    language: str


@dataclass(frozen=True, slots=True)
class Notebook:
    """A valid notebook with an installed kernel.

    Args:
        path: The absolute path of its file.
        content: Its content, converted to version 4 of the notebook format.
        kernel: The kernel that runs it.
    """

    path: Path
    content: Mapping[str, Any]
    kernel: Kernel

    @property
    def can_create_execution(self) -> bool:
        """Whether its cells may create an execution: they name this project, or run the user's own code."""
        return (
            self._contains(PACKAGE_PREFIX)
            or self._contains("%run")
            or any(map(self._is_user_package, self._imported_packages()))
        )

    @property
    def has_configuration(self) -> bool:
        """Whether its code loads a configuration, to which overrides apply."""
        return self._contains(CONFIG_FUNCTION)

    def _contains(self, text: str) -> bool:
        return any(text in source for source in self._code_sources())

    def _code_sources(self) -> Iterator[str]:
        yield from (cell["source"] for cell in self.content["cells"] if cell["cell_type"] == "code")

    def _imported_packages(self) -> set[str]:
        """Return the packages that its code imports; matched by line, since cells with magic commands do not parse."""
        return {match[1] for source in self._code_sources() for match in _IMPORT_PATTERN.finditer(source)}

    def _is_user_package(self, package: str) -> bool:
        """Whether a package belongs neither to the standard library nor to an installed distribution."""
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
        file: The path of the notebook.
        kernel: The kernel to use instead of the one that the notebook names.

    Returns:
        The notebook.

    Raises:
        ConfigurationError: The file is not a valid notebook, or the kernel is not installed.
    """
    path = to_absolute_path(expand_home(file))
    content = _load_notebook(path)
    spec = content["metadata"].get("kernelspec")
    own = str(spec.get("name") or "") if isinstance(spec, dict) else ""
    return Notebook(path, MappingProxyType(content), _find_kernel(kernel or own or DEFAULT_KERNEL, path))


def _load_notebook(path: Path) -> dict[str, Any]:
    import warnings

    import nbformat

    if path.suffix != ".ipynb":
        raise ConfigurationError(f"{path} is not a notebook: its name does not end in .ipynb.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a notebook: it is not UTF-8 text.") from error
    except OSError as error:
        raise ConfigurationError(f"The notebook {path} cannot be read: {error.strerror}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notebooks of older versions have no cell ids
            content = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(content)
    except Exception as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigurationError(f"{path} is not a valid notebook: {message}") from error
    return dict(content)


def _find_kernel(name: str, path: Path) -> Kernel:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        return Kernel(name, str(manager.get_kernel_spec(name).language))
    except NoSuchKernel as error:
        installed = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise ConfigurationError(
            f"The kernel {name!r} of {path} is not installed. Installed kernels: {installed}. Choose one with "
            f"--kernel, or run `python -m ipykernel install --sys-prefix --name {name}` in the kernel's environment."
        ) from error
