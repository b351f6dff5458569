"""A plugin that is found only in runs on a real server: objects go where such a run may delete them again."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace

from deriva_ml_core.backend import Backend
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl

NAMESPACE = "DERIVA_ML_TEST_NAMESPACE"
"""The environment variable that names it."""


@hookimpl(wrapper=True)
def connect(address: Address) -> Generator[None, Backend, Backend]:
    """Put new objects of a server's catalog into the run's own namespace."""
    backend = yield
    from deriva_ml_core.backends.deriva.open import server_from_address
    from deriva_ml_core.backends.deriva.store import DerivaStore

    if not isinstance(backend.store, DerivaStore):
        return backend
    return replace(backend, store=DerivaStore(server_from_address(address), os.environ[NAMESPACE]))
