"""What every catalog promises, as tests: subclass, say how to open one, and run pytest."""

from __future__ import annotations

from deriva_ml_core.testing.catalog_questions import QueryContract
from deriva_ml_core.testing.catalog_rows import RowContract
from deriva_ml_core.testing.catalog_states import StateContract

__all__ = ["CatalogContract"]


class CatalogContract(RowContract, QueryContract, StateContract):
    """The promises of `deriva_ml_core.backend.Catalog`; override the fixture `open_catalog`."""
