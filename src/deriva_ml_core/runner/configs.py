"""Find and import a project's configs, and add the defaults that every project needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.paths import expand_home, find_current_folder, to_absolute_path
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.model_run import run_model

__all__ = [
    "CONFIG_FOLDERS",
    "CONFIG_GROUPS",
    "MAIN_CONFIG",
    "DerivaMLConfig",
    "add_standard_configs",
    "create_model_config",
    "find_config_folder",
    "load_config_folder",
    "load_configs",
]

CONFIG_FOLDERS = (Path("src/configs"), Path("configs"))
"""Folders searched for a project's configs, relative to the working directory; the first that exists is used."""

MAIN_CONFIG = "deriva_model"
"""Name of the main config, which `create_model_config` builds."""

CONFIG_GROUPS: Mapping[str, str] = {
    "deriva_ml": "default_deriva",
    "datasets": "default_dataset",
    "assets": "default_asset",
    "workflow": "default_workflow",
    "model_config": "default_model",
}
"""The config groups, each with the name of its default config."""

LAST_MODULE = "experiments"
"""Module that is imported last, since its presets refer to configs stored by the other modules."""


def create_model_config(
    ml_class: type[DerivaML] | None = None,
    description: str = "Model execution",
    hydra_defaults: Sequence[str | dict[str, str]] | None = None,
) -> Any:
    """Build the main config of ``deriva-ml-run``: a config of `run_model` that chooses one config of each group.

    Args:
        ml_class: The class of the client: `DerivaML` (the default) or a subclass of it.
        description: The default description of runs.
        hydra_defaults: Hydra's defaults list; by default the configs ``default_deriva``, ``default_dataset``,
            ``default_asset``, ``default_workflow`` and ``default_model`` of the groups ``deriva_ml``, ``datasets``,
            ``assets``, ``workflow`` and ``model_config``.

    Returns:
        The config, to be stored by hydra-zen's ``store(…, name="deriva_model")``.
    """
    from hydra_zen import builds

    function: Any = run_model  # its arguments here are configs, which its annotations do not allow
    return builds(
        function,
        populate_full_signature=True,
        description=description,
        ml_class=ml_class,
        hydra_defaults=list(_build_defaults_list(CONFIG_GROUPS) if hydra_defaults is None else hydra_defaults),
    )


def _build_defaults_list(chosen: Mapping[str, str]) -> list[str | dict[str, str]]:
    return ["_self_", *({group: name} for group, name in chosen.items())]


def load_configs(package: str = "configs") -> list[str]:
    """Import all modules of a package of configs; each module adds its configs to hydra-zen's store.

    Args:
        package: The full name of the package. Its subpackages are imported too, in alphabetical order; a module
            ``experiments`` is imported last in each package.

    Returns:
        The full names of the modules, in the order of their import.

    Raises:
        ConfigurationError: The package does not exist, or one of its modules cannot be imported.
    """
    import pkgutil

    module = _import_module(package)
    if not hasattr(module, "__path__"):
        return [package]
    names = sorted(
        (found.name for found in pkgutil.iter_modules(module.__path__)), key=lambda name: (name == LAST_MODULE, name)
    )
    return [package, *(loaded for name in names for loaded in load_configs(f"{package}.{name}"))]


def find_config_folder(path: Path | None = None) -> Path:
    """Find the config folder of a project.

    Args:
        path: The folder that the user named, or None to search for ``src/configs`` and ``configs``.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigurationError: The folder does not exist, or none was named and there is no default folder.
    """
    for folder in CONFIG_FOLDERS if path is None else (expand_home(path),):
        if folder.is_dir():
            return to_absolute_path(folder)
    if path is not None:
        raise ConfigurationError(f"The config folder {path} does not exist. Pass an existing one with --config-dir.")
    here = find_current_folder() or "The current folder, which was deleted,"
    raise ConfigurationError(
        f"{here} contains neither {' nor '.join(map(str, CONFIG_FOLDERS))}. Change to the project's folder, or pass "
        "the config folder with --config-dir."
    )


def load_config_folder(folder: Path) -> list[str]:
    """Import a config folder as a package, and register the stored configs with Hydra.

    The parent of the folder is added to ``sys.path``, since the model functions are imported from there. If the parent
    is named ``src``, the project's folder is added too.

    Args:
        folder: The absolute path of the folder.

    Returns:
        The full names of the imported modules.

    Raises:
        ConfigurationError: A module cannot be imported, or another package has the name of the folder.
    """
    from hydra_zen import store

    if not folder.name.isidentifier():
        raise ConfigurationError(
            f"The config folder {folder} cannot be imported: its name is no Python identifier. Rename it."
        )
    roots = [folder.parent, folder.parent.parent] if folder.parent.name == "src" else [folder.parent]
    sys.path[:0] = [str(root) for root in roots if str(root) not in sys.path]
    package = _import_module(folder.name)
    if folder.resolve() not in (Path(path).resolve() for path in package.__path__):
        raise ConfigurationError(
            f"The config folder {folder} cannot be imported: {package.__path__[0]} has the same name. Rename one."
        )
    loaded = load_configs(folder.name)
    store.add_to_hydra_store(overwrite_ok=True)
    add_standard_configs(folder)
    return loaded


def add_standard_configs(folder: Path) -> None:
    """Store default configs for the groups that a project leaves out.

    These are the embedded catalog as ``deriva_ml=default_deriva``, no inputs as ``datasets=default_dataset`` and
    ``assets=default_asset``, and the main config. Workflows and models have no default: without a ``default_workflow``
    or ``default_model`` of the project, the command line must name one.

    Args:
        folder: The project's config folder, which may contain Hydra's YAML files.
    """
    from hydra.core.config_store import ConfigStore
    from hydra_zen import builds
    from omegaconf import OmegaConf

    hydra = ConfigStore.instance()
    standard = {"deriva_ml": builds(DerivaMLConfig, populate_full_signature=True), "datasets": [], "assets": []}
    for group, config in standard.items():
        if not _has_config(folder, group, CONFIG_GROUPS[group]):
            hydra.store(name=CONFIG_GROUPS[group], node=config, group=group, provider="deriva-ml")
    if not _has_config(folder, "", MAIN_CONFIG):
        chosen = {group: name if _has_config(folder, group, name) else "???" for group, name in CONFIG_GROUPS.items()}
        main = OmegaConf.structured(create_model_config(hydra_defaults=_build_defaults_list(chosen)))
        # a plain mapping, so that presets in the group experiment need not inherit from this config's class
        hydra.store(name=MAIN_CONFIG, node=OmegaConf.to_container(main), provider="deriva-ml")


def _has_config(folder: Path, group: str, name: str) -> bool:
    from hydra.core.config_store import ConfigStore
    from hydra.core.object_type import ObjectType

    stored = ConfigStore.instance().get_type(f"{group}/{name}.yaml") is ObjectType.CONFIG
    return stored or any((folder / group / f"{name}{ending}").is_file() for ending in (".yaml", ".yml"))


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigurationError(
            f"The config module {name} cannot be imported: {type(error).__name__}: {error}{_error_location(error)}."
        ) from error


def _error_location(error: Exception) -> str:
    """Return the innermost location in the user's files in the traceback of an import error."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    locations: Iterator[str] = (
        f" ({frame.filename}, line {frame.lineno})"
        for frame in reversed(frames)
        if not frame.filename.startswith("<") and "site-packages" not in frame.filename and frame.filename != __file__
    )
    return next((location for location in locations if f"{importlib.__name__}" not in location), "")
