"""Train a small network on images of digits with a plain PyTorch loop, and print the recorded run."""

from __future__ import annotations

from pathlib import Path

import torch
from digits_data import digits_dataset, read_images
from show_run import arguments, show_run
from torch import Tensor, nn

from deriva_ml import DatasetSpec, DerivaML, ExecutionConfiguration
from deriva_ml_core import DatasetBag
from deriva_ml_core.training import TrainingReporter


def load(bag: DatasetBag, purpose: str) -> tuple[Tensor, Tensor]:
    images, labels = read_images(bag, purpose)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    losses = []
    for batch in torch.randperm(len(images)).split(32):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(ml: DerivaML, epochs: int) -> str:
    digits = DatasetSpec(rid=digits_dataset(ml).rid)
    workflow = ml.create_workflow("Digit classifier in PyTorch", "Training", "Two layers, in a plain loop")
    config = ExecutionConfiguration(workflow=workflow, description=f"Adam, 0.002, epochs: {epochs}", datasets=[digits])
    with ml.create_execution(config) as exe:
        bag = exe.download_dataset_bag(digits)
        (images, labels), (test_images, test_labels) = load(bag, "Training"), load(bag, "Testing")
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.002)

        def save(path: Path) -> None:
            with path.open("wb") as file:  # with a path, torch.save would store the file name in the file
                torch.save(model.state_dict(), file)

        reporter = TrainingReporter(exe, monitor="val_accuracy")
        reporter.begin_fit(epochs, settings={"model": str(model), "optimizer": optimizer.state_dict()["param_groups"]})
        for epoch in range(1, epochs + 1):
            metrics = {"loss": train_epoch(model.train(), optimizer, images, labels)}
            with torch.no_grad():
                hits = model.eval()(test_images).argmax(1) == test_labels
            metrics["val_accuracy"] = hits.float().mean().item()
            reporter.save_checkpoint(epoch, ".pt", save, metrics)
            reporter.end_epoch(epoch, metrics, samples=len(images))
        reporter.end_fit()
    exe.upload_execution_outputs()
    return exe.execution_rid


if __name__ == "__main__":
    catalog, epochs = arguments(__doc__ or "")
    show_run(catalog, train(catalog, epochs))
