"""The configs that a project has, as ``--list-configs`` shows them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType

from deriva_ml_core.runner.configs import CONFIG_GROUPS
from deriva_ml_core.runner.plan import HYDRA_VERSION_BASE, JOB_NAME

__all__ = ["print_configs"]

HYDRA_GROUP = "hydra"


def print_configs(folder: Path, main_config: str) -> None:
    """Write the groups of configs to standard output, each with its configs; a star marks what is taken by default.

    Args:
        folder: The folder of configs, absolute.
        main_config: The main configuration.
    """
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=HYDRA_VERSION_BASE):
        found = dict(_iter_groups(GlobalHydra.instance().config_loader(), ""))
    width = max(map(len, found), default=0)
    lines = [f"Configs of {folder}, with {main_config} as the main one; * is taken where none is named.", ""]
    for group, names in sorted(found.items(), key=lambda item: ([*CONFIG_GROUPS, item[0]].index(item[0]), item[0])):
        marked = (f"{name}*" if name == CONFIG_GROUPS.get(group) else name for name in names)
        lines.append(f"  {group:{width}}  {', '.join(marked)}")
    lines += ["", "Choose by GROUP=NAME, and by +GROUP=NAME in a group that has no default."]
    sys.stdout.write("\n".join(lines) + "\n")


def _iter_groups(loader: ConfigLoader, parent: str) -> Iterator[tuple[str, list[str]]]:
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group == HYDRA_GROUP:
            continue
        if names := loader.get_group_options(group, ObjectType.CONFIG):
            yield group, names
        yield from _iter_groups(loader, group)
