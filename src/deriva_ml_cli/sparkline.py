"""Sparklines: a series of values as one row of block characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

__all__ = ["sparkline"]

UNICODE_BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=^"
"""For terminals without Unicode."""


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """A row of blocks as high as the values; where there are more values than blocks, each block is the mean of some.

    Args:
        values: The values; what is no number leaves a gap.
        width: The most blocks.
        unicode: Whether the terminal knows blocks.
    """
    marks = UNICODE_BLOCKS if unicode else ASCII_BLOCKS
    means = list(_iter_bin_means(values, width))
    known = [value for value in means if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    if not (math.isfinite(high - low) and high > low):
        return "".join(marks[len(marks) // 2] if math.isfinite(value) else " " for value in means)
    top = len(marks) - 1
    return "".join(marks[round((value - low) / (high - low) * top)] if math.isfinite(value) else " " for value in means)


def _iter_bin_means(values: Sequence[float], max_bins: int) -> Iterator[float]:
    count = min(max_bins, len(values))
    for place in range(count):
        part = values[place * len(values) // count : (place + 1) * len(values) // count]
        known = [value for value in part if math.isfinite(value)]
        yield math.fsum(known) / len(known) if known else math.nan
