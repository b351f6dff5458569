"""Checkpoints of one fit: ``python -m benchmarks.scripts.checkpoint_writes <tracker> <folder> <epochs> <bytes>``.

For each epoch after the warm-up, it measures how long the training's thread was blocked between two steps, and how much
memory was allocated meanwhile. At the end it measures how many bytes are stored twice on disk, and how many the user's
own ModelCheckpoint keeps.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from benchmarks.scripts.model import Tiny, batches, create_trainer, write_figures
from benchmarks.scripts.recorders import KEPT, NOTHING, OWN, PLAIN, RECORDERS

WARM_UP_EPOCHS = 2
"""Epochs that are not counted: the first files use new page cache, later ones that of deleted files."""


class LargeModel(Tiny):
    """Has a large checkpoint that changes in each step, and measures time and memory between steps."""

    def __init__(self, bytes_: int) -> None:
        super().__init__()
        self.register_buffer("ballast", torch.zeros(bytes_ // 4))
        self.blocked: list[float] = []
        self.memory: list[int] = []
        self._step_end = 0.0
        self._memory_before = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        if self._step_end:
            self.blocked.append(perf_counter() - self._step_end)
            self.memory.append(_read_memory("VmHWM") - self._memory_before)
        self.ballast[self.current_epoch] += 1
        return super().training_step(batch)

    def on_train_batch_end(self, *_: Any) -> None:
        _reset_peak()
        self._memory_before, self._step_end = _read_memory("VmRSS"), perf_counter()


class SaveByHand(Callback):
    """Saves the checkpoint that Lightning would save, and keeps only the last one."""

    def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
        folder = Path(trainer.default_root_dir)
        new, old = (folder / f"{epoch}.pt" for epoch in (trainer.current_epoch, trainer.current_epoch - 1))
        with new.open("wb") as file:
            torch.save(trainer._checkpoint_connector.dump_checkpoint(), file)
        old.unlink(missing_ok=True)


def _read_memory(name: str) -> int:
    """Return an entry of this process's status in bytes; 0 on systems without /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the resident size, see proc(5)
    except OSError:
        return


def _duplicate_bytes(folder: Path, length: int) -> int:
    """Return the bytes of large files that a folder contains more than once."""
    files = {path.stat().st_ino: path for path in _large_files(folder, length)}
    contents = {hashlib.md5(path.read_bytes()).digest() for path in files.values()}
    return (len(files) - len(contents)) * length


def _large_files(folder: Path, length: int) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= length]


def main(tracker: str, folder: Path, epochs: int, length: int) -> None:
    """Fit with one step per epoch."""
    module = LargeModel(length)
    if tracker in (NOTHING, PLAIN, OWN):
        extra = {"callbacks": [SaveByHand()]} if tracker == PLAIN else {}
        recorder, checkpointing = RECORDERS["deriva-ml" if tracker == OWN else "bare"], False
    else:
        extra, recorder, checkpointing = {}, RECORDERS["deriva-ml" if tracker == KEPT else tracker], True
    with recorder(folder, True) as arguments:
        options = {"enable_checkpointing": checkpointing, **extra, **arguments}
        if tracker == KEPT:
            options["callbacks"] = [*options["callbacks"], ModelCheckpoint(folder / "mine", filename="{epoch}")]
        create_trainer(folder, max_epochs=epochs, **options).fit(module, batches(1))
    write_figures(
        folder,
        blocked=module.blocked[WARM_UP_EPOCHS:],
        memory=module.memory[WARM_UP_EPOCHS:],
        duplicates=_duplicate_bytes(folder, length),
        kept=len(_large_files(folder / "mine", length)) * length,
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
