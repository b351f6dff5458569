"""Where a training's checkpoints go: a new file an epoch, which never holds half of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.errors import ConfigurationError

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["Checkpoints"]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one execution.

    Args:
        execution: What keeps them.
        table: The asset table.
        types: Terms of the vocabulary Asset_Type.
        every_n_epochs: How many epochs apart they are; 0 keeps none.
    """

    execution: Execution
    table: str
    types: tuple[str, ...]
    every_n_epochs: int

    def __post_init__(self) -> None:
        if self.every_n_epochs < 0:
            raise ConfigurationError(
                f"save_every_n_epochs={self.every_n_epochs} cannot be meant: give 1 or more, or 0 for no checkpoints."
            )
        self.execution.check_asset(self.table, self.types)

    def due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, leaves a checkpoint: told by the number alone, so alike in every process."""
        return self.every_n_epochs > 0 and epoch % self.every_n_epochs == 0

    def register(self, fit: int, epoch: int, suffix: str) -> Path:
        """Register the checkpoint of an epoch: ``epoch-0003.ckpt``, in later fits ``fit-2-epoch-0003.ckpt``."""
        name = f"{'' if fit == 1 else f'fit-{fit}-'}epoch-{epoch:04d}{suffix}"
        return self.execution.asset_file_path(self.table, name, asset_types=list(self.types))

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let a framework write beside the checkpoint's place, and put it there when it is whole."""
        partial = path.with_name(f".writing-{path.name}")
        try:
            write(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def drop(self, path: Path) -> None:
        """Forget a checkpoint that could not be written."""
        path.unlink(missing_ok=True)
        self.execution.forget(path)
