"""The console output of fits: that of a callback's own execution, of its DataLoader workers and of all its ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from pseudo_terminal import run_in_terminal

LIGHTNING = """
import os, sys
import torch
from lightning.pytorch import LightningModule, Trainer
from deriva_ml_lightning import DerivaMLCallback

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, number):
        print("row", number, flush=True)
        return torch.ones(2)

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, _):
        return self.layer(batch).square().mean()
    def on_train_epoch_end(self):
        print("rank", self.trainer.global_rank, flush=True)
        print("error of rank", self.trainer.global_rank, file=sys.stderr)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    options = {"accelerator": "cpu", "logger": False, "enable_model_summary": False, "max_epochs": 1}
    options |= {"enable_progress_bar": False, "devices": int(sys.argv[1]), "strategy": sys.argv[2]}
    loader = torch.utils.data.DataLoader(Rows(), num_workers=2)
    Trainer(callbacks=[DerivaMLCallback(console=True, curves=False)], **options).fit(Model(), loader)
    print("after", os.isatty(1))
"""


@pytest.mark.parametrize(("devices", "strategy"), [(1, "auto"), (2, "ddp")])
def test_lightning_fit(tmp_path: Path, devices: int, strategy: str) -> None:
    """What workers and ranks print is kept and shown on the terminal, which the program has again after the fit."""
    pytest.importorskip("lightning")
    script = tmp_path / "fit.py"
    script.write_text(LIGHTNING)
    command = [sys.executable, "-W", "ignore", script, str(devices), strategy]
    status, text = run_in_terminal(command, cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert status == 0, text
    (run,) = DerivaML().find_executions()
    kept = (run.read_console() or "").splitlines()
    expected = {f"row {number}" for number in range(4)}
    expected |= {f"{start}rank {rank}" for rank in range(devices) for start in ("", "error of ")}
    assert expected <= set(kept)
    assert expected | {"after True"} <= set(text.splitlines())
    assert "after True" not in kept
    assert [kept.count(f"rank {rank}") for rank in range(devices)] == [1] * devices
    assert [text.splitlines().count(f"rank {rank}") for rank in range(devices)] == [1] * devices
