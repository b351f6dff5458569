"""Datasets, dataset bags and dataset specifications."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.datasets": (
            "Dataset",
            "DatasetBag",
            "DatasetVersion",
            "VersionPart",
        ),
        "deriva_ml_core.models": ("DatasetSpec",),
    },
)
