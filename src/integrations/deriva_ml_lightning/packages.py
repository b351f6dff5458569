"""Lightning comes as two packages with two Callback classes; people have either, or both."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["callback_classes"]

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def callback_classes() -> tuple[type, ...]:
    """The Callback class of each of the two packages that is imported; where none is, of the first that is installed.

    Raises:
        ModuleNotFoundError: Neither is installed.
    """
    imported = tuple(sys.modules[name].Callback for name in PACKAGES if sys.modules.get(name))
    return imported or (_first_installed(),)


def _first_installed() -> type:
    for name in PACKAGES:
        try:
            found: type = import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the package is there and lacks one that it needs
        else:
            return found
    raise ModuleNotFoundError(
        "deriva_ml_lightning needs lightning or pytorch-lightning: pip install 'deriva-ml-core[lightning]'."
    )
