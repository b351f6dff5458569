"""What cells show in a real kernel: live curves, progress bars and the tables of answers."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from html_reader import text_of

pytest.importorskip("ipykernel", reason="ipykernel, needed to run cells, is not installed")

from kernel import Kernel, start_kernel

BEGIN = """
import time, warnings
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
workflow = Workflow(name="Fit", workflow_type="Training", url="https://example.org/fit.py", checksum="1" * 40)
ml = DerivaML()
config = ExecutionConfiguration(workflow=workflow)
"""
LOOP = """
from deriva_ml_core.training import TrainingReporter
with ml.create_execution(config) as exe:
    reporter = TrainingReporter(exe, checkpoints="none", curves=False, live=True)
    reporter.begin_fit(60)
    for epoch in range(1, 61):
        time.sleep(0.05)
        reporter.end_epoch(epoch, {"loss": 1 / epoch, "val_loss": 2 / epoch})
    reporter.end_fit()
"""
KERAS = """
import keras, numpy
from deriva_ml_keras import DerivaMLCallback
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
data = numpy.ones((8, 2)), numpy.ones((8, 1))
callback = DerivaMLCallback(ml=ml, configuration=config, checkpoints="none", live=True)
history = model.fit(*data, epochs=3, verbose=0, callbacks=[callback])
"""
LIGHTNING = """
import logging, torch
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")
from lightning.pytorch import LightningModule, Trainer
from deriva_ml_lightning import DerivaMLCallback

class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

callback = DerivaMLCallback(ml=ml, configuration=config, checkpoints="none", live=True)
trainer = Trainer(
    max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
    enable_model_summary=False, callbacks=[callback],
)
trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def kernel(home: str) -> Iterator[Kernel]:
    """A kernel with a catalog of its own."""
    with start_kernel() as started:
        environ = {"DERIVA_ML_HOME": home, "KERAS_BACKEND": "torch", "DERIVA_ML_QUIET": ""}
        assert started.run(f"import os\nos.environ.update({environ})\n{BEGIN}").error == ""
        yield started


def test_live_curve(kernel: Kernel) -> None:
    """A fit updates one output, at most once a second, and the last update has the last epoch."""
    begin = monotonic()
    result = kernel.run(LOOP)
    seconds = monotonic() - begin
    assert result.error == ""
    assert len(result.displays) - result.updates == 1
    assert 2 <= len(result.displays) <= seconds + 2
    last = result.displays[-1]
    assert last["text/plain"].endswith(": epoch 60")
    assert {"loss", "val_loss", "60"} <= set(text_of(last["text/html"], allow_svg=True))


def test_live_curve_is_silenced(kernel: Kernel) -> None:
    """DERIVA_ML_QUIET=1 shows no curve."""
    result = kernel.run(f"os.environ['DERIVA_ML_QUIET'] = '1'\n{LOOP}\nos.environ['DERIVA_ML_QUIET'] = ''")
    assert (result.error, result.displays) == ("", [])


@pytest.mark.parametrize(("framework", "code"), [("keras", KERAS), ("lightning", LIGHTNING)])
def test_live_curve_of_a_callback(kernel: Kernel, framework: str, code: str) -> None:
    """The callbacks of Keras and Lightning take live=True."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    result = kernel.run(code)
    assert result.error == ""
    assert result.displays[-1]["text/plain"].endswith(": epoch 3")


def test_answers_are_tables(kernel: Kernel) -> None:
    """The value of a cell is shown by its HTML."""
    kernel.run("with ml.create_execution(config) as exe:\n    exe.log_params({'lr': 0.5})")
    for code, expected in (
        ("ml", "Newest executions"),
        ("ml.find_executions()", "Workflow"),
        ("exe", "Parameters"),
        ("ml.describe(exe.execution_rid)", "Statuses"),
        ("ml.lookup_workflow(exe.workflow_rid)", "checksum"),
    ):
        (display,) = kernel.run(code).displays
        assert expected in text_of(display["text/html"])


TRANSFERS = """
with ml.create_execution(config) as exe:
    dataset = exe.create_dataset("Digits")
    for number in range(60):
        exe.asset_file_path("Image", f"<b>{number}.png").write_bytes(bytes([number]) * 1000)
"""


def test_progress_bars(kernel: Kernel) -> None:
    """Uploads, bags and downloads of many files show a bar in the cell, which ends full; few files show none."""
    assert kernel.run(TRANSFERS).displays == []
    for code, expected in (
        ("exe.upload_execution_outputs()\npass", "Uploading 6"),
        ("images = [asset.rid for asset in exe.list_assets('Output') if asset.table == 'Image']", ""),
        ("dataset.add_dataset_members(images)", ""),
        ("bag = dataset.download_dataset_bag()", "Downloading dataset "),
        ("reader = ml.create_execution(config.model_copy(update={'assets': tuple(images)}))", ""),
        ("paths = reader.asset_paths", "Downloading 60 files: 60.0 kB of 60.0 kB"),
        ("path = ml.download_asset(images[0])", ""),
    ):
        result = kernel.run(code)
        assert result.error == ""
        if not expected:
            assert result.displays == []
            continue
        assert len(result.displays) - result.updates == 1
        assert result.displays[-1]["text/plain"].startswith(expected)
        assert "width:100.0%" in result.displays[-1]["text/html"]
        text_of(result.displays[-1]["text/html"])
    silenced = "os.environ['DERIVA_ML_QUIET'] = '1'\nimport shutil; shutil.rmtree(reader.working_dir / 'inputs')\n"
    result = kernel.run(f"{silenced}paths = reader.asset_paths\nos.environ['DERIVA_ML_QUIET'] = ''")
    assert (result.error, result.displays) == ("", [])
