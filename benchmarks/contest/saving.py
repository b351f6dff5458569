"""Checkpoints of one fit: ``python -m benchmarks.contest.saving <recorder> <folder> <epochs> <bytes>``.

It tells, for each epoch but the first ones, how long the training's thread was held between two steps, and by how much
memory grew meanwhile; and how many bytes lie on the disk twice in the end.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor

from benchmarks.contest.model import Tiny, batches, told, trainer
from benchmarks.contest.recorders import NOTHING, OWN, PLAIN, RECORDERS

WARMING = 2
"""Epochs that do not count: the first files take fresh memory of the system, later ones what deleted ones leave."""


class Heavy(Tiny):
    """Has a large checkpoint, another one each step; between steps it watches time and memory."""

    def __init__(self, bytes_: int) -> None:
        super().__init__()
        self.register_buffer("ballast", torch.zeros(bytes_ // 4))
        self.held: list[float] = []
        self.grown: list[int] = []
        self._left = 0.0
        self._before = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        if self._left:
            self.held.append(perf_counter() - self._left)
            self.grown.append(_memory("VmHWM") - self._before)
        self.ballast[self.current_epoch] += 1
        return super().training_step(batch)

    def on_train_batch_end(self, *_: Any) -> None:
        _forget_peak()
        self._before, self._left = _memory("VmRSS"), perf_counter()


class ByHand(Callback):
    """Saves the same as Lightning does, and keeps the last one."""

    def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
        folder = Path(trainer.default_root_dir)
        new, old = (folder / f"{epoch}.pt" for epoch in (trainer.current_epoch, trainer.current_epoch - 1))
        with new.open("wb") as file:
            torch.save(trainer._checkpoint_connector.dump_checkpoint(), file)
        old.unlink(missing_ok=True)


def _memory(what: str) -> int:
    """A line of this process' status, in bytes; 0 on systems without."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{what}:"))


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): the peak becomes what is resident now
    except OSError:
        return


def _twice(folder: Path, length: int) -> int:
    """Bytes of large files that lie in a folder more than once."""
    large = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= length)
    files = {path.stat().st_ino: path for path in large}
    contents = {hashlib.md5(path.read_bytes()).digest() for path in files.values()}
    return (len(files) - len(contents)) * length


def main(recorder: str, folder: Path, epochs: int, length: int) -> None:
    """Fit one step an epoch."""
    module = Heavy(length)
    if recorder in (NOTHING, PLAIN, OWN):
        own = {"callbacks": [ByHand()]} if recorder == PLAIN else {}
        used, checkpointing = RECORDERS["ours" if recorder == OWN else "bare"], False
    else:
        own, used, checkpointing = {}, RECORDERS[recorder], True
    with used(folder, True) as arguments:
        given = {"enable_checkpointing": checkpointing, **own, **arguments}
        trainer(folder, max_epochs=epochs, **given).fit(module, batches(1))
    told(folder, held=module.held[WARMING:], grown=module.grown[WARMING:], twice=_twice(folder, length))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
