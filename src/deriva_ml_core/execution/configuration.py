"""The configuration of an execution: workflow, inputs and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ConfigurationError, InvalidTag
from deriva_ml_core.models import AssetSpec, CheckedRID, DatasetSpec, FrozenModel
from deriva_ml_core.workflow import Workflow

__all__ = ["ExecutionConfiguration"]


def _coerce_dataset_spec(value: Any) -> Any:
    return {"rid": value} if isinstance(value, str) else value


def _coerce_asset_specs(assets: Sequence[AssetSpec | RID]) -> tuple[AssetSpec, ...]:
    return tuple(AssetSpec(rid=asset) if isinstance(asset, str) else asset for asset in assets)


def _check_tags(tags: Any) -> tuple[str, ...]:
    from deriva_ml_core.execution.tags import check_tags

    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidTag(f"The tags of a configuration must be a list of texts, not {type(tags).__name__}.")
    return check_tags(tags)


class ExecutionConfiguration(FrozenModel):
    """The configuration of an execution.

    Args:
        workflow: The workflow to run: a `Workflow`, or the RID of one in the catalog.
        description: Purpose of this run.
        datasets: Input datasets; a bare RID means the current version.
        assets: Input assets, as RIDs or `AssetSpec`.
        parameters: Other values to record with the run, such as hyperparameters, as JSON values.
        tags: Tags of the run, as for `RecordedExecution.add_tags`.
    """

    model_config = ConfigDict(ser_json_inf_nan="null")

    workflow: Workflow | CheckedRID | None = None
    description: str = ""
    datasets: Annotated[
        Sequence[Annotated[DatasetSpec, BeforeValidator(_coerce_dataset_spec)]], AfterValidator(tuple)
    ] = ()
    assets: Annotated[Sequence[AssetSpec | CheckedRID], AfterValidator(_coerce_asset_specs)] = ()
    parameters: Mapping[str, JsonValue] = Field(default_factory=dict)
    tags: Annotated[Sequence[str], BeforeValidator(_check_tags)] = ()

    @classmethod
    def load_configuration(cls, path: str | Path) -> ExecutionConfiguration:
        """Read a configuration from a JSON or YAML file.

        Args:
            path: The file; ``.json`` is read as JSON, any other suffix as YAML.

        Returns:
            The configuration.

        Raises:
            ConfigurationError: The file does not exist, cannot be read, or has an unknown key.
            InvalidTag: A tag is invalid.
        """
        path = Path(path)
        try:
            return cls.model_validate(_parse_file(path))
        except OSError as error:
            raise ConfigurationError(f"Cannot read the configuration {path}: {error.strerror}.") from error
        except ValidationError as error:
            problems = "; ".join(f"{_format_location(fault['loc'])}: {fault['msg']}" for fault in error.errors())
            known_keys = ", ".join(cls.model_fields)
            raise ConfigurationError(
                f"Invalid configuration {path}: {problems}. The known keys are {known_keys}."
            ) from error

    @property
    def asset_rids(self) -> tuple[RID, ...]:
        """RIDs of the input assets."""
        return tuple(asset.rid for asset in _coerce_asset_specs(self.assets))


def _parse_file(path: Path) -> Any:
    import yaml

    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The configuration {path} is neither JSON nor YAML: {error}.") from error


def _format_location(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "file"
