"""Inputs of an execution, recorded when they are declared or downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core import datasets
from deriva_ml_core.assets.lookup import (
    asset_target,
    download_asset,
    download_assets,
    link_inputs,
    lookup_asset,
    lookup_assets,
)
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import InputRecorded
from deriva_ml_core.models import Asset, DatasetSpec

if TYPE_CHECKING:
    from deriva_ml_core.datasets import DatasetBag

__all__ = ["Inputs"]


class Inputs:
    """The input datasets and assets of one execution.

    Args:
        connection: Catalog and store of the inputs.
        journal: The execution's journal, which lists each input.
        execution: RID of the execution; inputs of a dry run are only in its journal.
    """

    def __init__(self, connection: Connection, journal: Journal, execution: RID) -> None:
        self._connection = connection
        self._journal = journal
        self._execution = execution
        self._bags: dict[Path, DatasetBag] = {}
        """The downloaded bags. They stay in the cache while this object exists."""

    def record(self, specs: Sequence[DatasetSpec], assets: Sequence[Asset]) -> None:
        """Record dataset versions and assets as inputs; skip those already recorded."""
        state = self._journal.state
        for spec in specs:
            if (spec.rid, spec.version) not in state.datasets:
                if self._execution != DRY_RUN_RID:
                    datasets.record_input(self._connection, self._execution, spec)
                self._journal.append(InputRecorded(dataset=spec))
        new = {asset.rid: asset for asset in assets if asset.rid not in state.assets}
        if new:
            if self._execution != DRY_RUN_RID:
                link_inputs(self._connection, new.values(), self._execution)
            self._journal.append(*(InputRecorded(asset=rid) for rid in new))

    def record_asset(self, asset: Asset | RID) -> Asset:
        """Record an asset as an input; see ``Execution.record_input``."""
        recorded = lookup_asset(self._connection, asset) if isinstance(asset, str) else asset
        self.record([], [recorded])
        return recorded

    def download_bag(self, dataset: DatasetSpec | RID) -> DatasetBag:
        """Download a dataset as a bag; see ``Execution.download_dataset_bag``."""
        spec = DatasetSpec(rid=dataset) if isinstance(dataset, str) else dataset
        spec = datasets.resolve_version(self._connection, self._pin_declared_version(spec))
        self.record([spec], [])
        source = datasets.lookup_dataset(self._connection, spec.rid)
        bag = source.download_dataset_bag(spec.version, materialize=spec.materialize)
        self._bags.setdefault(bag.path, bag)
        return bag

    def _pin_declared_version(self, spec: DatasetSpec) -> DatasetSpec:
        """Set the version recorded at creation on a spec without a version."""
        versions = [recorded.version for recorded in self._journal.state.datasets.values() if recorded.rid == spec.rid]
        return spec.model_copy(update={"version": versions[0]}) if spec.version is None and versions else spec

    def download_file(self, asset: Asset | RID, folder: str | os.PathLike[str]) -> Path:
        """Download an asset as a file; see ``Execution.download_asset``."""
        return download_asset(self._connection, self.record_asset(asset), Path(folder))

    def download_all_bags(self) -> list[DatasetBag]:
        """Download all input datasets recorded so far."""
        return [self.download_bag(spec) for spec in list(self._journal.state.datasets.values())]

    def download_all_files(self, folder: Path) -> dict[str, list[Path]]:
        """Download all input assets recorded so far and return their paths by table."""
        assets = lookup_assets(self._connection, list(self._journal.state.assets))
        download_assets(self._connection, assets, lambda asset: asset_target(asset, folder))
        paths: dict[str, list[Path]] = {}
        for asset in assets:
            paths.setdefault(asset.table, []).append(asset_target(asset, folder))
        return paths
