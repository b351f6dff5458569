"""From a checkpoint's last byte to its row: ``python -m benchmarks.contest.sending <folder> <rounds> <bytes>``.

It tells what each round took, beside what an MD5 pass over the same file takes.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from time import time

import torch

from benchmarks.contest.model import batches, timed, told, trainer
from benchmarks.contest.saving import Heavy
from benchmarks.places import configuration, open_catalog
from deriva_ml_lightning import DerivaMLCallback


def main(folder: Path, rounds: int, length: int) -> None:
    """Fit one step, then send its checkpoint; a warming round first."""
    taken, passes = [], []
    for number in range(rounds + 1):
        module = Heavy(length)
        module.ballast += number  # no store has this one yet
        ml = open_catalog(folder / "home")
        with ml.create_execution(configuration()) as exe:
            callback = DerivaMLCallback(exe, upload="never", checkpoints="last")
            trainer(folder, max_epochs=1, callbacks=[callback]).fit(module, batches(1))
            (path,) = (staged.path for staged in exe.staged_assets() if staged.path.stat().st_size >= length)
            written = path.stat().st_mtime
            exe.upload_execution_outputs()
            taken.append(time() - written)
        like = folder / "like.pt"
        torch.save(module.ballast, like)  # the checkpoint itself is the store's now
        passes.append(timed(lambda like=like: _digested(like)))
    told(folder, taken=taken[1:], passes=passes[1:])


def _digested(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "md5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
