"""DerivaML for Lightning, with ``lightning.pytorch`` and ``pytorch_lightning``."""

from __future__ import annotations

from deriva_ml_lightning.autolog import Autolog, autolog
from deriva_ml_lightning.callback import DerivaMLCallback

__all__ = ["Autolog", "DerivaMLCallback", "autolog"]
