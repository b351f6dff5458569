"""DerivaML for Keras 3, with any Keras backend."""

from __future__ import annotations

from deriva_ml_keras.autolog import Autolog, autolog
from deriva_ml_keras.callback import DerivaMLCallback

__all__ = ["Autolog", "DerivaMLCallback", "autolog"]
