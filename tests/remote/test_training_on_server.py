"""The record of a training on a server is the same as on this machine, event by event."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from remote_server import RemoteServer

pytest.importorskip("numpy", reason="numpy is not installed")
events_test = importlib.import_module("integrations.test_training_events")
framework = events_test.framework


@pytest.fixture(scope="module")
def number(remote_server: RemoteServer) -> str:
    """Return the number of a catalog with the standard tables and terms."""
    return remote_server.catalog()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 with numpy 2
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning 2.6 with torch 2.13
def test_training_on_a_server(
    framework: tuple[Callable[..., Any], Any], remote_server: RemoteServer, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a training on a server equals the embedded catalog's, with uploads after each fit."""
    monkeypatch.setattr(events_test, "DerivaML", partial(remote_server.open, number))
    make, callback = framework
    events_test.test_events_of_a_training((make, partial(callback, upload="end")))
