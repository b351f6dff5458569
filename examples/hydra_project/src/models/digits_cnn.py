"""A small convolutional network on images of handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deriva_ml import DerivaML, Execution
from deriva_ml_core.training import TrainingReporter

TESTING = 360
"""Number of images for testing: the last ones, from writers who wrote none of the others."""


def read_digits() -> tuple[Tensor, Tensor]:
    """Return images of shape (n, 1, 8, 8) with values from 0 to 1, and their labels."""
    from sklearn.datasets import load_digits  # takes a second, which --list-configs does not need

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(digits.target)


def make_network(channels: int) -> nn.Module:
    """Return a network with one convolution, whose last layer has a score for each digit."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 10)
    )


def train(
    epochs: int = 2,
    rate: float = 0.01,
    channels: int = 8,
    seed: int = 7,
    *,
    ml_instance: DerivaML,
    execution: Execution,
) -> float:
    """Train the network and return its accuracy."""
    if rate <= 0:
        raise ValueError(f"rate={rate} must be above zero.")
    torch.manual_seed(seed)
    images, labels = read_digits()
    network = make_network(channels)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    accuracy = 0.0
    reporter = TrainingReporter(execution, checkpoints="none", curves=False)
    reporter.begin_fit(epochs, settings={"network": str(network), "catalog": str(ml_instance)})
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(images) - TESTING).split(32):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            hits = network(images[-TESTING:]).argmax(1) == labels[-TESTING:]
        accuracy = hits.float().mean().item()
        reporter.end_epoch(epoch, {"loss": loss.item(), "val_accuracy": accuracy})
    reporter.end_fit()
    with execution.asset_file_path("Model", "digits_cnn.pt", asset_types="Model_File").open("wb") as file:
        torch.save(network.state_dict(), file)
    return accuracy
