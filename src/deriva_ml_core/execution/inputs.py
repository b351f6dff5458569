"""What goes into an execution: recorded when it is declared and when it is brought here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core import datasets
from deriva_ml_core.assets.lookup import download_asset, link_inputs, lookup_asset, lookup_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import InputRecorded
from deriva_ml_core.models import Asset, DatasetSpec

if TYPE_CHECKING:
    from deriva_ml_core.datasets import DatasetBag

__all__ = ["Inputs"]


class Inputs:
    """The datasets and assets that one execution takes in.

    Args:
        connection: Where they are.
        journal: Where each is written down.
        execution: Which execution; a dry run's are in its journal only.
    """

    def __init__(self, connection: Connection, journal: Journal, execution: RID) -> None:
        self._connection = connection
        self._journal = journal
        self._execution = execution

    def record(self, specs: Sequence[DatasetSpec], assets: Sequence[Asset]) -> None:
        """Record that dataset versions and assets went in; those that are recorded already are passed over."""
        story = self._journal.state
        for spec in specs:
            if (spec.rid, spec.version) not in story.datasets:
                if self._execution != DRY_RUN_RID:
                    datasets.record_input(self._connection, self._execution, spec)
                self._journal.append(InputRecorded(dataset=spec))
        new = {asset.rid: asset for asset in assets if asset.rid not in story.assets}
        if new:
            if self._execution != DRY_RUN_RID:
                link_inputs(self._connection, new.values(), self._execution)
            self._journal.append(*(InputRecorded(asset=rid) for rid in new))

    def record_asset(self, asset: Asset | RID) -> Asset:
        """Record that an asset went in; see ``Execution.record_input``."""
        found = lookup_asset(self._connection, asset) if isinstance(asset, str) else asset
        self.record([], [found])
        return found

    def download_bag(self, dataset: DatasetSpec | RID) -> DatasetBag:
        """Bring a dataset here as a bag; see ``Execution.download_dataset_bag``."""
        spec = DatasetSpec(rid=dataset) if isinstance(dataset, str) else dataset
        spec = datasets.resolve_version(self._connection, self._pin_declared_version(spec))
        self.record([spec], [])
        found = datasets.lookup_dataset(self._connection, spec.rid)
        return found.download_dataset_bag(spec.version, materialize=spec.materialize)

    def _pin_declared_version(self, spec: DatasetSpec) -> DatasetSpec:
        """The version that was recorded when the execution was created, where none is asked for."""
        recorded = [each.version for each in self._journal.state.datasets.values() if each.rid == spec.rid]
        return spec.model_copy(update={"version": recorded[0]}) if spec.version is None and recorded else spec

    def download_file(self, asset: Asset | RID, folder: str | os.PathLike[str]) -> Path:
        """Bring an asset here as a file; see ``Execution.download_asset``."""
        found = self.record_asset(asset)
        return download_asset(self._connection, found, Path(folder))

    def download_all_bags(self) -> list[DatasetBag]:
        """All datasets that went in so far, brought here."""
        return [self.download_bag(spec) for spec in list(self._journal.state.datasets.values())]

    def download_all_files(self, folder: Path) -> dict[str, list[Path]]:
        """All assets that went in so far, brought here, by table."""
        paths: dict[str, list[Path]] = {}
        for asset in lookup_assets(self._connection, list(self._journal.state.assets)):
            paths.setdefault(asset.table, []).append(self.download_file(asset, folder))
        return paths
