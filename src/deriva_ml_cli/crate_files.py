"""The files and datasets of a crate: brought into it, or named by where they lie, with sizes and checksums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.crate_words import guess_media_type, is_web_url
from deriva_ml_cli.kept import safe_file_name
from deriva_ml_core.assets.recorded import download_asset

if TYPE_CHECKING:
    from deriva_ml_cli.account import DatasetVersion
    from deriva_ml_cli.crate_words import CrateBuilder
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.models import Asset

__all__ = ["CrateFiles"]


@dataclass(frozen=True, slots=True)
class CrateFiles:
    """Adds the files of an execution.

    Args:
        ml: The catalog.
        builder: The crate.
        download_folder: A folder for what is brought from the store.
        included_roles: Whose bytes are brought: ``records``, ``inputs``, ``outputs``.
    """

    ml: DerivaML
    builder: CrateBuilder
    download_folder: Path
    included_roles: frozenset[str]

    def add_assets(self, role: str, assets: Iterable[Asset]) -> list[Any]:
        """The files of one role."""
        return [self._add_asset(role, asset) for asset in assets]

    def add_dataset(self, dataset: DatasetVersion) -> Any:
        """A version of a dataset, which stays where it is."""
        facts = {
            "name": dataset.description or f"Dataset {dataset.rid}",
            "version": dataset.version,
            "identifier": dataset.rid,
        }
        return self.builder.add_remote_data(dataset.citation, "Dataset", facts)

    def _add_asset(self, role: str, asset: Asset) -> Any:
        url = self.ml.connection.store.source(asset.url)
        facts = {
            "name": asset.filename,
            "contentSize": str(asset.length),
            "md5": asset.md5,
            "encodingFormat": guess_media_type(asset.filename),
            "keywords": ", ".join(asset.asset_types),
            "identifier": self.ml.connection.catalog.cite(asset.rid),
        }
        if role not in self.included_roles:
            return self.builder.add_remote_data(url, "File", facts)
        file = download_asset(self.ml.connection, asset, self.download_folder)
        place = f"{role}/{asset.table}/{asset.rid}/{safe_file_name(asset)}"
        return self.builder.add_file(place, file, "File", {**facts, "contentUrl": url if is_web_url(url) else None})
