"""DerivaML for Lightning: one callback, or one call, for ``lightning.pytorch`` and for ``pytorch_lightning``."""

from __future__ import annotations

from deriva_ml_lightning.autolog import Autolog, autolog
from deriva_ml_lightning.callback import DerivaMLCallback

__all__ = ["Autolog", "DerivaMLCallback", "autolog"]
