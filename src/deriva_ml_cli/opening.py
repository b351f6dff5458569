"""The client that a command asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["opened"]


def opened(host: str | None, catalog: str | None) -> DerivaML:
    """Open the catalog that the command line names, the embedded one where it names none.

    Raises:
        UnknownAddress: No backend answers for it.
    """
    from deriva_ml_core.client import DerivaML

    return DerivaML(host, catalog)
