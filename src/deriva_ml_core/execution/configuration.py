"""What an execution is to be: its workflow, its inputs, and its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.models import AssetSpec, CheckedRID, DatasetSpec, LazySignature
from deriva_ml_core.workflow import Workflow

__all__ = ["ExecutionConfiguration"]


def _coerce_dataset_spec(value: Any) -> Any:
    return {"rid": value} if isinstance(value, str) else value


def _coerce_asset_specs(assets: Sequence[AssetSpec | RID]) -> tuple[AssetSpec, ...]:
    return tuple(AssetSpec(rid=asset) if isinstance(asset, str) else asset for asset in assets)


class ExecutionConfiguration(BaseModel):
    """The configuration of an execution.

    Args:
        workflow: What runs: a `Workflow`, or the record id of one in the catalog.
        description: What this run is for.
        datasets: The datasets that go in; a bare record id means its current version.
        assets: The assets that go in, as record ids or `AssetSpec`.
        parameters: Whatever else should be kept with the run, as JSON values: hyperparameters, say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    __signature__ = LazySignature()

    workflow: Workflow | CheckedRID | None = None
    description: str = ""
    datasets: Annotated[
        Sequence[Annotated[DatasetSpec, BeforeValidator(_coerce_dataset_spec)]], AfterValidator(tuple)
    ] = ()
    assets: Annotated[Sequence[AssetSpec | CheckedRID], AfterValidator(_coerce_asset_specs)] = ()
    parameters: Mapping[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def load_configuration(cls, path: str | Path) -> ExecutionConfiguration:
        """Read a configuration from a JSON or YAML file.

        Args:
            path: The file; one that ends in ``.json`` is JSON, any other YAML.

        Raises:
            ConfigurationError: There is no such file, it cannot be read, or it has a key that is not known.
        """
        path = Path(path)
        try:
            return cls.model_validate(_parse_file(path))
        except OSError as error:
            raise ConfigurationError(f"The configuration {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            wrong = "; ".join(f"{_format_location(fault['loc'])}: {fault['msg']}" for fault in error.errors())
            known = ", ".join(cls.model_fields)
            raise ConfigurationError(
                f"The configuration {path} is not right: {wrong}. Its keys are {known}."
            ) from error

    @property
    def asset_rids(self) -> tuple[RID, ...]:
        """The record ids of the input assets."""
        return tuple(asset.rid for asset in _coerce_asset_specs(self.assets))


def _parse_file(path: Path) -> Any:
    import yaml

    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The configuration {path} is neither JSON nor YAML: {error}.") from error


def _format_location(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "the whole"
