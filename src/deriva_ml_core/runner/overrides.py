"""What commands of ours say to hydra in its overrides."""

from __future__ import annotations

import re

__all__ = ["quote_override_value"]


def quote_override_value(text: str) -> str:
    """A text as hydra's overrides have it, whatever is in it.

    Args:
        text: The text.

    Returns:
        It in single quotes; hydra takes a backslash for more than itself only before a quote.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
