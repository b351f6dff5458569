"""Regenerate the pictures of the web page in docs/images: train on the digits, and photograph each page.

Run it from a clone with Chromium installed: ``.venv/bin/python docs/made_screenshots.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from sklearn.datasets import load_digits

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 900
EPOCHS = 30
RATES = (0.5, 0.2, 0.05, 0.02, 0.01)

WORKFLOW = Workflow(
    name="digits.py",
    workflow_type="Training",
    url="https://github.com/example/digits/blob/4f1d2c9/digits.py",
    checksum="9d0b2e6f3a1c4d5e6f708192a3b4c5d6e7f80910",
    version="1.2.0",
)


def record_digits(home: Path) -> dict[str, str]:
    """Record a dataset and a sweep in a new catalog, and return the addresses of the pages by name."""
    with DerivaML(f"file:{home / 'local'}") as ml:
        dataset = _record_dataset(ml)
        runs = [
            _train(ml, rate, optimizer, dataset)
            for rate in RATES
            for optimizer in ("sgd", "momentum")
        ]
        workflow = ml.lookup_execution(runs[0]).workflow_rid
    return {
        "runs": "/?sort=val_loss",
        "run": f"/runs/{runs[1]}",
        "compare": f"/compare?runs={','.join(runs[1:8:2])}",
        "dataset": f"/datasets/{dataset}",
        "workflow": f"/workflows/{workflow}",
    }


def _record_dataset(ml: DerivaML) -> str:
    digits = load_digits()
    ml.add_dataset_element_type("Image")
    importing = Workflow(
        name="import.py",
        workflow_type="Preprocessing",
        url=WORKFLOW.url.replace("digits.py", "import.py"),
        checksum="5" * 40,
    )
    with ml.create_execution(
        ExecutionConfiguration(workflow=importing, description="Import the scans")
    ) as exe:
        for number, scan in enumerate(digits.images[:40]):
            path = exe.asset_file_path(
                "Image", f"digit-{digits.target[number]}-{number:03}.png"
            )
            picture = Image.fromarray((255 - scan * 15).astype("uint8"))
            picture.resize((96, 96), Image.Resampling.NEAREST).save(path)
        pictures = exe.upload_execution_outputs()["Image"]
        dataset = exe.create_dataset("Scans of digits", "Training")
        dataset.add_dataset_members([asset.rid for asset in pictures])
    exe.upload_execution_outputs()
    return dataset.rid


def _train(ml: DerivaML, rate: float, optimizer: str, dataset: str) -> str:
    """Record a softmax regression, and return the RID of its run."""
    digits = load_digits()
    features, labels = digits.data / 16, np.eye(10)[digits.target]
    weights, velocity = np.zeros((64, 10)), np.zeros((64, 10))
    config = ExecutionConfiguration(
        workflow=WORKFLOW,
        description=f"Rate {rate}, {optimizer}",
        datasets=[DatasetSpec(rid=dataset)],
    )
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(
            epochs=EPOCHS,
            settings={"lr": rate, "optimizer": optimizer, "batch_size": 100},
        )
        for epoch in range(1, EPOCHS + 1):
            for start in range(0, 1200, 100):
                batch = slice(start, start + 100)
                gradient = (
                    features[batch].T
                    @ (_softmax(features[batch] @ weights) - labels[batch])
                    / 100
                )
                velocity = (
                    0.9 if optimizer == "momentum" else 0.0
                ) * velocity + gradient
                weights = weights - rate * velocity
            if epoch % 5 == 0:
                pattern = (
                    weights.reshape(8, 8, 10)
                    .transpose(2, 0, 1)
                    .reshape(2, 5, 8, 8)
                    .transpose(0, 2, 1, 3)
                )
                reporter.log_image(
                    "weights",
                    np.kron(_scale(pattern.reshape(16, 40)), np.ones((8, 8))),
                    step=epoch * 12,
                    epoch=epoch,
                )
            reporter.end_epoch(
                epoch,
                {
                    **_measure(features[:1200], labels[:1200], weights, ""),
                    **_measure(features[1200:], labels[1200:], weights, "val_"),
                },
                step=epoch * 12,
            )
        reporter.end_fit()
    exe.upload_execution_outputs()
    return exe.execution_rid


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _scale(values: np.ndarray) -> np.ndarray:
    return ((values - values.min()) / (np.ptp(values) or 1)).astype("float32")


def _measure(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, prefix: str
) -> Mapping[str, float]:
    probabilities = _softmax(features @ weights)
    loss = -np.log((probabilities * labels).sum(axis=1)).mean()
    accuracy = (probabilities.argmax(axis=1) == labels.argmax(axis=1)).mean()
    return {f"{prefix}loss": float(loss), f"{prefix}accuracy": float(accuracy)}


@contextmanager
def serve(home: Path) -> Iterator[tuple[str, str]]:
    """Start the page, and yield its address and its token."""
    command = [sys.executable, "-m", "deriva_ml_cli", "ui", "--port", "0"]
    environment = {
        **os.environ,
        "DERIVA_ML_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        lines = server.stdout.readline() + server.stdout.readline()
        (found,) = re.findall(r"(http://\S+)/\s.*?(\S+)\n$", lines, re.DOTALL)
        address, token = found
        try:
            yield address, token
        finally:
            server.terminate()


def photograph(
    browser: Browser, address: str, token: str, pages: Mapping[str, str]
) -> None:
    """Save a picture of each page."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(f"{address}/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button").click()
    for name, path in pages.items():
        page.goto(address + path)
        page.wait_for_selector("tbody tr")
        if name in ("run", "compare"):
            page.wait_for_selector("figure canvas")
        page.wait_for_load_state("networkidle")
        page.evaluate(
            "document.querySelector('.catalog').textContent = '~/.deriva-ml/local'"
        )
        page.wait_for_timeout(1500)  # the last frames of the charts
        page.screenshot(path=IMAGES / f"page-{name}.png")


def main() -> None:
    """Record the catalog and save the pictures."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        home = Path(name) / "digits"
        pages = record_digits(home)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        with serve(home) as (address, token):
            photograph(browser, address, token, pages)
        browser.close()


if __name__ == "__main__":
    main()
