"""The files in which hydra says how a run was configured, kept with its execution without their secrets."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.definitions import MLAsset, MLVocab
from deriva_ml_core.execution import Execution

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pydantic import JsonValue

__all__ = [
    "config_choices",
    "dump_redacted_yaml",
    "quote_override_value",
    "read_redacted_yaml",
    "render_hydra_files",
    "to_json_value",
    "upload_hydra_files",
]

log = logging.getLogger(__name__)


HYDRA_CONFIG = "Hydra_Config"


def render_hydra_files(config: DictConfig, hydra: DictConfig) -> dict[str, str]:
    """What hydra writes of a job: its configuration, the overrides, and hydra's own settings.

    They are made from what this process holds, and not read from hydra's output folder, which two runs that begin in
    the same second share.

    Args:
        config: The job's configuration, its interpolations not resolved.
        hydra: The node ``hydra`` of the whole configuration.

    Returns:
        The texts of ``config.yaml``, ``overrides.yaml`` and ``hydra.yaml``, by these names, secrets redacted.
    """
    parts: dict[str, JsonValue] = {
        "config.yaml": to_json_value(config),
        "overrides.yaml": to_json_value(hydra.overrides.task),
        "hydra.yaml": {"hydra": to_json_value(hydra)},
    }
    return {name: dump_redacted_yaml(part) for name, part in parts.items()}


def read_redacted_yaml(file: Path) -> str:
    """A YAML file that hydra wrote, as its text, secrets redacted."""
    import yaml

    return dump_redacted_yaml(yaml.safe_load(file.read_text(encoding="utf-8")))


def upload_hydra_files(execution: Execution, texts: Mapping[str, str]) -> None:
    """Keep hydra's files as records of an execution, of type Hydra_Config; they are sent at once.

    What a catalog that cannot be reached does not take stays staged for the next upload. A dry run keeps nothing.

    Args:
        execution: Whose they are.
        texts: The files' texts by name, as `hydra_files` gives them.
    """
    if execution.dry_run or not execution.is_rank_zero:
        return
    desk = execution._runtime
    folder = desk.folder / "records"
    folder.mkdir(parents=True, exist_ok=True)
    known = execution._connection.terms.cached_terms(MLVocab.asset_type)
    kind = HYDRA_CONFIG if HYDRA_CONFIG in known else MLAsset.execution_metadata.value
    staged = []
    for name, text in texts.items():
        file = folder / name
        file.write_text(text, encoding="utf-8")
        staged.append(desk.staging.stage_metadata_file(name, file, kind))
    for left in desk.outputs.upload_metadata_files(staged):
        log.warning("%s of execution %s is not kept yet: %s", left.asset.filename, execution.execution_rid, left.reason)


def config_choices(hydra: DictConfig) -> dict[str, str]:
    """Which config was chosen in each of the project's own groups."""
    found = hydra.runtime.choices.items()
    return {str(group): str(name) for group, name in found if name is not None and not str(group).startswith("hydra/")}


def to_json_value(node: Any, *, resolve: bool = False) -> JsonValue:
    """A node of a configuration as values of JSON; what JSON has no word for becomes its text.

    Args:
        node: The node, or a value in one.
        resolve: Whether interpolations are replaced by what they mean.
    """
    from omegaconf import OmegaConf

    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=resolve, enum_to_str=True)
    if isinstance(node, dict):
        return {str(name): to_json_value(part) for name, part in node.items()}
    if isinstance(node, list | tuple):
        return [to_json_value(part) for part in node]
    return node if node is None or isinstance(node, bool | int | float | str) else str(node)


def dump_redacted_yaml(value: JsonValue) -> str:
    """A value as YAML, secrets redacted."""
    import yaml

    from deriva_ml_core.redaction import redact  # many patterns to compile

    return str(yaml.safe_dump(redact(value), sort_keys=False, allow_unicode=True))


def quote_override_value(text: str) -> str:
    """A text as hydra's overrides have it, whatever is in it.

    Args:
        text: The text.

    Returns:
        It in single quotes; hydra takes a backslash for more than itself only before a quote.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
