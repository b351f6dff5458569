"""The lines that a fit of a framework prints on a terminal about its run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pseudo_terminal import run_in_terminal

LIGHTNING = """
import torch
from lightning.pytorch import LightningModule, Trainer
from deriva_ml_lightning import DerivaMLCallback

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, _):
        self.log("train_loss", loss := self.layer(batch).square().mean())
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

loader = torch.utils.data.DataLoader(torch.ones(4, 2))
options = {"accelerator": "cpu", "logger": False, "enable_model_summary": False, "max_epochs": 2}
Trainer(callbacks=[DerivaMLCallback()], **options).fit(Model(), loader)
"""

KERAS = """
import numpy
import keras
from deriva_ml_keras import DerivaMLCallback

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
model.fit(numpy.ones((4, 2)), numpy.ones((4, 1)), epochs=2, callbacks=[DerivaMLCallback()])
"""


@pytest.mark.parametrize(
    ("package", "code", "metric"), [("lightning", LIGHTNING, "train_loss"), ("keras", KERAS, "loss")]
)
def test_fit_on_a_terminal(tmp_path: Path, package: str, code: str, metric: str) -> None:
    """A fit with a callback alone prints one line at its begin and one after its upload, between the progress bars."""
    pytest.importorskip(package)
    script = tmp_path / "fit.py"
    script.write_text(code)
    status, text = run_in_terminal(
        [sys.executable, "-W", "ignore", script], cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert status == 0, text
    text = " ".join(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).split())  # rich wraps lines that others print
    lines = re.findall(r"Execution (\S+) (?:of fit\.py (began)|(completed) (.*?show \S+))", text)
    assert [(began, completed) for _, began, completed, _ in lines] == [("began", ""), ("", "completed")]
    rid = lines[0][0]
    assert re.fullmatch(
        rf"after [\d.]+ s, best {metric} [\d.e-]+ in epoch \d; \d files \([\d.]+ kB\) sent\. "
        rf"Details: deriva-ml show {rid}",
        lines[1][3],
    ), lines
    assert lines[1][0] == rid
