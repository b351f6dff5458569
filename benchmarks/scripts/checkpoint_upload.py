"""Time from a checkpoint's last byte to its row, compared with an MD5 pass over the same file.

Usage: ``python -m benchmarks.scripts.checkpoint_upload <folder> <rounds> <bytes>``.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from time import time

import torch

from benchmarks.fixtures import execution_configuration, open_catalog
from benchmarks.scripts.checkpoint_writes import LargeModel
from benchmarks.scripts.model import batches, create_trainer, time_call, write_figures
from deriva_ml_lightning import DerivaMLCallback


def main(folder: Path, rounds: int, length: int) -> None:
    """Fit one step and upload its checkpoint, after a warm-up round."""
    uploads, passes = [], []
    for number in range(rounds + 1):
        module = LargeModel(length)
        module.ballast += number  # makes the checkpoint new to the store
        ml = open_catalog(folder / "home")
        with ml.create_execution(execution_configuration()) as exe:
            callback = DerivaMLCallback(exe, upload="never", checkpoints="last")
            create_trainer(folder, max_epochs=1, callbacks=[callback]).fit(module, batches(1))
            (path,) = (staged.path for staged in exe.staged_assets() if staged.path.stat().st_size >= length)
            written = path.stat().st_mtime
            exe.upload_execution_outputs()
            uploads.append(time() - written)
        copy = folder / "copy.pt"
        torch.save(module.ballast, copy)  # the checkpoint itself was moved into the store
        passes.append(time_call(lambda copy=copy: _digest(copy)))
    write_figures(folder, uploads=uploads[1:], passes=passes[1:])


def _digest(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "md5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
