"""DerivaML's core: provenance for machine-learning runs."""
