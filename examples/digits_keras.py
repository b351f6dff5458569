"""Train a small network on images of digits with Keras, and print the recorded run."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from digits_data import digits_dataset, read_images
from keras import layers
from show_run import arguments, show_run

from deriva_ml import DatasetSpec, DerivaML, ExecutionConfiguration
from deriva_ml_keras import DerivaMLCallback


def digit_classifier() -> keras.Model:
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2), layers.Flatten(), layers.Dropout(0.3), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(ml: DerivaML, epochs: int) -> str:
    digits = DatasetSpec(rid=digits_dataset(ml).rid)
    workflow = ml.create_workflow("Digit classifier in Keras", "Training", "A small CNN, trained with Keras")
    config = ExecutionConfiguration(workflow=workflow, description=f"Adam, 0.002, epochs: {epochs}", datasets=[digits])
    with ml.create_execution(config) as exe:
        bag = exe.download_dataset_bag(digits)
        images, labels = read_images(bag, "Training")
        digit_classifier().fit(
            images[..., None],
            labels,
            epochs=epochs,
            validation_data=[part[..., None] if part.ndim == 3 else part for part in read_images(bag, "Testing")],
            callbacks=[DerivaMLCallback(exe)],
            verbose="auto" if sys.stdout.isatty() else 0,
        )
    exe.upload_execution_outputs()
    return exe.execution_rid


if __name__ == "__main__":
    catalog, epochs = arguments(__doc__ or "")
    show_run(catalog, train(catalog, epochs))
