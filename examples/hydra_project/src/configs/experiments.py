"""Presets that select an entry of each group, such as ``+experiment=digits_cnn``."""

from hydra_zen import make_config, store

experiment_store = store(group="experiment", package="_global_")

experiment_store(
    make_config(
        hydra_defaults=["_self_", {"override /workflow": "digits"}, {"override /model_config": "digits_cnn"}],
        description="A small CNN learns handwritten digits",
    ),
    name="digits_cnn",
)
