"""A project's configs: its folder found, its modules imported, and what every project needs put beside them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.run_model import run_model

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
"""Where a project's configs are looked for, in the folder that the command is given in."""

MAIN_CONFIG = "deriva_model"
"""The name of the main configuration, which `create_model_config` makes."""

CONFIG_GROUPS: Mapping[str, str] = {
    "deriva_ml": "default_deriva",
    "datasets": "default_dataset",
    "assets": "default_asset",
    "workflow": "default_workflow",
    "model_config": "default_model",
}
"""The groups of configs, and which config of each is taken where none is named."""

LAST_MODULE = "experiments"
"""The module that is imported last, since its presets name what the others store."""


def create_model_config(
    ml_class: type[DerivaML] | None = None,
    description: str = "Model execution",
    hydra_defaults: Sequence[str | dict[str, str]] | None = None,
) -> Any:
    """Make the main configuration of ``deriva-ml-run``: one of `run_model`, which chooses a config of each group.

    Args:
        ml_class: The class of the client, one that is made of `DerivaML`; by default that itself.
        description: What runs are for where nothing else is said.
        hydra_defaults: Hydra's defaults list; by default the configs ``default_deriva``, ``default_dataset``,
            ``default_asset``, ``default_workflow`` and ``default_model`` of the groups ``deriva_ml``, ``datasets``,
            ``assets``, ``workflow`` and ``model_config``.

    Returns:
        What hydra-zen's ``store(…, name="deriva_model")`` takes.
    """
    from hydra_zen import builds

    function: Any = run_model  # what it is built of are configs, not what they become
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
    """Import all modules of a package of configs, which store what they make in hydra-zen's store.

    Args:
        package: The package's name; its packages follow, and a module ``experiments`` comes last in each.

    Returns:
        The modules' full names, in the order of their import.

    Raises:
        ConfigurationError: There is no such package, or one of its modules cannot be imported.
    """
    import pkgutil

    found = _import_module(package)
    if not hasattr(found, "__path__"):
        return [package]
    names = sorted(
        (module.name for module in pkgutil.iter_modules(found.__path__)), key=lambda name: (name == LAST_MODULE, name)
    )
    return [package, *(each for name in names for each in load_configs(f"{package}.{name}"))]


def find_config_folder(path: Path | None = None) -> Path:
    """Find the folder of a project's configs.

    Args:
        path: The folder, where the user named one.

    Returns:
        Its absolute path.

    Raises:
        ConfigurationError: It is no folder; or none was named, and there is neither ``src/configs`` nor ``configs``.
    """
    for folder in CONFIG_FOLDERS if path is None else (path.expanduser(),):
        if folder.is_dir():
            return folder.absolute()
    if path is not None:
        raise ConfigurationError(f"The folder of configs {path} is not there: name the right one with --config-dir.")
    raise ConfigurationError(
        f"There is neither {' nor '.join(map(str, CONFIG_FOLDERS))} in {Path.cwd()}: go to the project's folder, or "
        "name the folder of its configs with --config-dir."
    )


def load_config_folder(folder: Path) -> list[str]:
    """Import a folder of configs as a package, and hand over to hydra what its modules stored.

    Its parent, and the project's folder where that is ``src``, become places to import from: the model functions lie
    there.

    Args:
        folder: The folder, absolute.

    Returns:
        The modules' full names.

    Raises:
        ConfigurationError: A module cannot be imported, or another package has the folder's name.
    """
    from hydra_zen import store

    if not folder.name.isidentifier():
        raise ConfigurationError(f"The folder of configs {folder} cannot be imported: rename it to a Python name.")
    places = [folder.parent, folder.parent.parent] if folder.parent.name == "src" else [folder.parent]
    sys.path[:0] = [str(place) for place in places if str(place) not in sys.path]
    found = _import_module(folder.name)
    if folder.resolve() not in (Path(place).resolve() for place in found.__path__):
        raise ConfigurationError(f"{folder} cannot be imported: {found.__path__[0]} has its name. Rename the folder.")
    loaded = load_configs(folder.name)
    store.add_to_hydra_store(overwrite_ok=True)
    add_standard_configs(folder)
    return loaded


def add_standard_configs(folder: Path) -> None:
    """Store what a project's configs may leave out, unless they have it themselves.

    That is the embedded catalog as ``deriva_ml=default_deriva``, no inputs as ``datasets=default_dataset`` and
    ``assets=default_asset``, and the main configuration. Of workflows and models there is no standard one: where the
    project has no ``default_workflow`` or ``default_model``, one has to be named.

    Args:
        folder: The folder of the project's configs, in which hydra's YAML files may lie as well.
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
        # without its class, as a preset of the group experiment need not be derived from it then
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
            f"The configs module {name} cannot be imported: {type(error).__name__}: {error}{_error_location(error)}."
        ) from error


def _error_location(error: Exception) -> str:
    """The last place in the user's files that an error of an import passed through."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    named: Iterator[str] = (
        f" ({frame.filename}, line {frame.lineno})"
        for frame in reversed(frames)
        if not frame.filename.startswith("<") and "site-packages" not in frame.filename and frame.filename != __file__
    )
    return next((text for text in named if f"{importlib.__name__}" not in text), "")
