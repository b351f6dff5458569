"""Render and upload Hydra's record of a job's configuration, with secrets redacted."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core._files.os_errors import translate_os_errors
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
    """Render the files that Hydra writes for a job: its configuration, its overrides and Hydra's own settings.

    They are rendered from memory and not read from Hydra's output folder, because two runs that start in the same
    second share that folder.

    Args:
        config: The job's configuration, with unresolved interpolations.
        hydra: The node ``hydra`` of the composed configuration.

    Returns:
        The texts of ``config.yaml``, ``overrides.yaml`` and ``hydra.yaml`` by file name, with secrets redacted.
    """
    parts: dict[str, JsonValue] = {
        "config.yaml": to_json_value(config),
        "overrides.yaml": to_json_value(hydra.overrides.task),
        "hydra.yaml": {"hydra": to_json_value(hydra)},
    }
    return {name: dump_redacted_yaml(part) for name, part in parts.items()}


def read_redacted_yaml(file: Path) -> str:
    """Return the text of a YAML file with secrets redacted."""
    import yaml

    return dump_redacted_yaml(yaml.safe_load(file.read_text(encoding="utf-8")))


def upload_hydra_files(execution: Execution, texts: Mapping[str, str]) -> None:
    """Upload Hydra's files as metadata of an execution, with the asset type Hydra_Config.

    If the catalog cannot be reached, the files stay staged for the next upload. Nothing is uploaded in a dry run.

    Args:
        execution: The execution.
        texts: The texts by file name, as returned by `render_hydra_files`.
    """
    if execution.dry_run or not execution.is_rank_zero:
        return
    runtime = execution._runtime
    folder = runtime.folder / "records"
    with translate_os_errors(f"Cannot create {folder}", runtime.folder):
        folder.mkdir(parents=True, exist_ok=True)
    asset_types = execution._connection.terms.cached_terms(MLVocab.asset_type)
    asset_type = HYDRA_CONFIG if HYDRA_CONFIG in asset_types else MLAsset.execution_metadata.value
    staged = []
    for name, text in texts.items():
        file = folder / name
        with translate_os_errors(f"Cannot write {file}", folder):
            file.write_text(text, encoding="utf-8")
        staged.append(runtime.staging.stage_metadata_file(name, file, asset_type))
    for failed in runtime.outputs.upload_metadata_files(staged):
        log.warning(
            "%s of execution %s was not uploaded: %s. It stays staged for the next upload.",
            failed.asset.filename,
            execution.execution_rid,
            failed.reason,
        )


def config_choices(hydra: DictConfig) -> dict[str, str]:
    """Return the chosen config of each of the project's groups."""
    choices = hydra.runtime.choices.items()
    return {
        str(group): str(name) for group, name in choices if name is not None and not str(group).startswith("hydra/")
    }


def to_json_value(node: Any, *, resolve: bool = False) -> JsonValue:
    """Convert a configuration node to JSON values; other types are converted to text.

    Args:
        node: The node, or a value in it.
        resolve: Whether to resolve interpolations.
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
    """Return a value as YAML with secrets redacted."""
    import yaml

    from deriva_ml_core.redaction import redact  # imported here, since it compiles many patterns

    return str(yaml.safe_dump(redact(value), sort_keys=False, allow_unicode=True))


def quote_override_value(text: str) -> str:
    """Quote any text as the value of a Hydra override.

    Args:
        text: The text.

    Returns:
        The text in single quotes. Backslashes are doubled only before a quote, since Hydra takes them literally
        elsewhere.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text) + "'"
