"""What every catalog promises, as tests: subclass, say how to open one, and run pytest."""

from __future__ import annotations

from deriva_ml_core.testing.catalog_questions import QuestionPromises
from deriva_ml_core.testing.catalog_rows import RowPromises
from deriva_ml_core.testing.catalog_states import StatePromises

__all__ = ["CatalogContract"]


class CatalogContract(RowPromises, QuestionPromises, StatePromises):
    """The promises of `deriva_ml_core.backend.Catalog`; override the fixture `open_catalog`."""
