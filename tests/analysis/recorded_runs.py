"""The values of the fixture `runs`."""

from __future__ import annotations

from dataclasses import dataclass

from deriva_ml_core.models import Asset


@dataclass(frozen=True)
class Runs:
    """An import that produced a model, a dataset with it, and a training that used both and failed."""

    first: str
    model: Asset
    dataset: str
    second: str
    workflow: str
