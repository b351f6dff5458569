"""Lightning comes as two packages with two Callback classes; people have either, or both."""

from __future__ import annotations

from importlib import import_module

__all__ = ["callback_classes"]

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def callback_classes() -> tuple[type, ...]:
    """The Callback class of each package that is installed; the second one costs next to nothing after the first.

    Raises:
        ModuleNotFoundError: Neither is installed.
    """
    found = tuple(filter(None, map(_callback_class, PACKAGES)))
    if not found:
        raise ModuleNotFoundError(
            "deriva_ml_lightning needs lightning or pytorch-lightning: pip install 'deriva-ml-core[lightning]'."
        )
    return found


def _callback_class(name: str) -> type | None:
    try:
        found: type = import_module(name).Callback
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the package is there and lacks one that it needs
        return None
    return found
