"""Data of the examples: scikit-learn's handwritten digits as PNG images, in a dataset with two parts."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from deriva_ml import DerivaML, Execution, ExecutionConfiguration, Status, Workflow
from deriva_ml_core import Asset, Dataset, DatasetBag

DIGITS = "Handwritten digits: 1,797 images of 8 by 8 pixels, from scikit-learn"
TESTING = 360
"""Number of images for testing: the last ones, from writers who wrote none of the others."""


def digits_dataset(ml: DerivaML) -> Dataset:
    """Return the dataset of digits; the first call creates it, in an execution of its own workflow."""
    workflow = Workflow(name="Digits as images", workflow_type="Preprocessing", script=Path(__file__))
    for earlier in ml.find_executions(workflow=ml.add_workflow(workflow), status=Status.completed):
        for output in earlier.list_output_datasets():
            if (dataset := ml.lookup_dataset(output.rid)).description == DIGITS:
                return dataset
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=DIGITS)) as exe:
        return make_dataset(exe, upload_images(exe))


def upload_images(exe: Execution) -> list[Asset]:
    """Write each digit as a PNG file in a folder named by its label, such as ``7/0042.png``, and upload them."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = exe.asset_file_path("Image", f"{label}/{number:04d}.png")
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(path)
    exe.update_status(Status.running, f"{len(digits.images)} images written")
    return sorted(exe.upload_execution_outputs()["Image"], key=lambda image: PurePath(image.filename).name)


def make_dataset(exe: Execution, images: list[Asset]) -> Dataset:
    """Create a dataset with a part for training and a part for testing."""
    parts = {"Training": images[:-TESTING], "Testing": images[-TESTING:]}
    whole = exe.create_dataset(DIGITS)
    for purpose, members in parts.items():
        part = exe.create_dataset(f"{purpose} part of the handwritten digits", dataset_types=[purpose])
        part.add_dataset_members({"Image": [image.rid for image in members]})
        whole.add_dataset_members([part.rid])
    return whole


def read_images(bag: DatasetBag, purpose: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read one part of the dataset from its bag.

    Returns:
        Images of shape (n, 8, 8) with values from 0 to 1, and their labels.
    """
    part = next(part for part in bag.list_dataset_children() if purpose in part.dataset_types)
    rows = part.list_dataset_members()["Image"]
    images = np.stack([np.asarray(Image.open(row["Filename"]), dtype=np.float32) / 255 for row in rows])
    labels = np.array([int(PurePath(row["Original_Filename"]).parts[0]) for row in rows])
    return images, labels
