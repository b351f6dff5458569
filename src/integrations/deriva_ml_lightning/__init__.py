"""DerivaML for Lightning: one callback, for ``lightning.pytorch`` and for ``pytorch_lightning``."""

from __future__ import annotations

from deriva_ml_lightning.callback import DerivaMLCallback

__all__ = ["DerivaMLCallback"]
