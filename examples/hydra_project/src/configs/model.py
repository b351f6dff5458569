"""Configurations of the model function, which ``deriva-ml-run`` calls in an execution."""

from hydra_zen import builds, store
from models.digits_cnn import train

Digits = builds(train, populate_full_signature=True, zen_partial=True)

model_store = store(group="model_config")
model_store(Digits(epochs=1, channels=4), name="small")
model_store(Digits(), name="digits_cnn")
