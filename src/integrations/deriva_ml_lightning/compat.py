"""Access to the classes of both Lightning packages, of which either or both may be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

__all__ = [
    "callback_classes",
    "find_callbacks",
    "find_checkpoint_callbacks",
    "find_classes",
    "is_default_checkpoint_callback",
    "restore_callback_order",
    "move_callback_last",
]

C = TypeVar("C")

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def callback_classes() -> tuple[type, ...]:
    """Return the Callback class of each imported package, or of the first installed one if none is imported.

    Raises:
        ModuleNotFoundError: Neither package is installed.
    """
    imported = tuple(package.Callback for package in _imported_packages())
    return imported or (_import_callback_class(),)


def find_classes(module: str, name: str) -> tuple[type[Any], ...]:
    """Return a class of each imported package, for ``isinstance``.

    Args:
        module: Module in the package, such as ``plugins.io``.
        name: Name of the class.
    """
    return tuple(getattr(import_module(f"{package.__name__}.{module}"), name) for package in _imported_packages())


def find_callbacks(trainer: Any, *kinds: type[C]) -> list[C]:
    """Return the callbacks of a Trainer that are instances of the classes, in call order."""
    return [each for each in trainer.callbacks if isinstance(each, kinds)]


def find_checkpoint_callbacks(trainer: Any) -> list[Any]:
    """Return the ModelCheckpoints of a Trainer."""
    return find_callbacks(trainer, *find_classes("callbacks", "ModelCheckpoint"))


def is_default_checkpoint_callback(callback: Any) -> bool:
    """Whether a ModelCheckpoint that no Trainer has used is one without arguments, as a Trainer adds it by default."""
    if type(callback) not in find_classes("callbacks", "ModelCheckpoint"):
        return False
    return _plain_attributes(callback) == _plain_attributes(type(callback)())


def _plain_attributes(callback: Any) -> dict[str, object]:
    plain = (str, int, float, bool, timedelta, type(None))
    return {name: value for name, value in vars(callback).items() if isinstance(value, plain)}


def move_callback_last(trainer: Any, callback: object) -> list[Any]:
    """Move a callback to the end of a Trainer's list, after the ModelCheckpoints that the Trainer puts there.

    Returns:
        The previous list.
    """
    original: list[Any] = trainer.callbacks
    trainer.callbacks = [*(each for each in original if each is not callback), callback]
    return original


def restore_callback_order(trainer: Any, original: list[Any]) -> None:
    """Restore an earlier order of a Trainer's callbacks, unless callbacks were added or removed."""
    if {id(each) for each in trainer.callbacks} == {id(each) for each in original}:
        trainer.callbacks = original


def _imported_packages() -> Iterator[ModuleType]:
    return (package for name in PACKAGES if (package := sys.modules.get(name)) is not None)


def _import_callback_class() -> type:
    for name in PACKAGES:
        try:
            callback_class: type = import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the package is installed, but one of its dependencies is not
        else:
            return callback_class
    raise ModuleNotFoundError(
        "deriva_ml_lightning requires lightning or pytorch-lightning: pip install 'deriva-ml-core[lightning]'."
    )
