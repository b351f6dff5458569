"""The web page of a catalog: a read-only application for one person on one machine, started by ``deriva-ml ui``."""
