"""What is on record of a training on a server is what is on record of it on this machine, event by event."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from places import Place

story = pytest.importorskip("integrations.test_training_events", reason="numpy is not installed")
framework = story.framework


@pytest.fixture(scope="module")
def number(place: Place) -> str:
    """A catalog with the standard tables and terms."""
    return place.catalog()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 with numpy 2
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning 2.6 with torch 2.13
def test_the_story_on_a_server(
    framework: tuple[Callable[..., Any], Any], place: Place, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent at the end of each fit, all is as the table of the embedded catalog says."""
    monkeypatch.setattr(story, "DerivaML", partial(place.open, number))
    make, callback = framework
    story.test_events_of_a_training((make, partial(callback, upload="end")))
