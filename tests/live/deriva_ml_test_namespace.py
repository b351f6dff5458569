"""Plugin for runs on a real server: objects are stored in a namespace that the run can delete."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace

from deriva_ml_core.backend import Backend
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl

NAMESPACE = "DERIVA_ML_TEST_NAMESPACE"
"""Environment variable with the name of the namespace."""


@hookimpl(wrapper=True)
def connect(address: Address) -> Generator[None, Backend, Backend]:
    """Store new objects of a server's catalog in the run's namespace."""
    backend = yield
    from deriva_ml_core.backends.deriva.open import server_from_address
    from deriva_ml_core.backends.deriva.store import DerivaStore

    if not isinstance(backend.store, DerivaStore):
        return backend
    return replace(backend, store=DerivaStore(server_from_address(address), os.environ[NAMESPACE]))
