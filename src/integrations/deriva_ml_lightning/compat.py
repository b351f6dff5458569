"""Lightning comes as two packages, each with classes of its own; people have either, or both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

__all__ = [
    "callback_classes",
    "find_callbacks",
    "find_checkpoint_callbacks",
    "find_classes",
    "restore_callback_order",
    "move_callback_last",
]

C = TypeVar("C")

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def callback_classes() -> tuple[type, ...]:
    """The Callback class of each of the two packages that is imported; where none is, of the first that is installed.

    Raises:
        ModuleNotFoundError: Neither is installed.
    """
    imported = tuple(package.Callback for package in _imported_packages())
    return imported or (_import_callback_class(),)


def find_classes(module: str, name: str) -> tuple[type[Any], ...]:
    """A class of each of the two packages that is imported, for ``isinstance``.

    Args:
        module: The module in the package, such as ``plugins.io``.
        name: The class.
    """
    return tuple(getattr(import_module(f"{package.__name__}.{module}"), name) for package in _imported_packages())


def find_callbacks(trainer: Any, *kinds: type[C]) -> list[C]:
    """A Trainer's callbacks of some kinds, in the order in which they are called."""
    return [each for each in trainer.callbacks if isinstance(each, kinds)]


def find_checkpoint_callbacks(trainer: Any) -> list[Any]:
    """The Trainer's own ModelCheckpoints."""
    return find_callbacks(trainer, *find_classes("callbacks", "ModelCheckpoint"))


def move_callback_last(trainer: Any, callback: object) -> list[Any]:
    """Let a callback be the last that a Trainer calls, which puts its ModelCheckpoints there.

    Returns:
        The callbacks as they were.
    """
    before: list[Any] = trainer.callbacks
    trainer.callbacks = [*(each for each in before if each is not callback), callback]
    return before


def restore_callback_order(trainer: Any, original: list[Any]) -> None:
    """Put a Trainer's callbacks back into an earlier order, unless they are others now."""
    if {id(each) for each in trainer.callbacks} == {id(each) for each in original}:
        trainer.callbacks = original


def _imported_packages() -> Iterator[ModuleType]:
    return (found for name in PACKAGES if (found := sys.modules.get(name)) is not None)


def _import_callback_class() -> type:
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
