"""The commands, a file each, imported when they are called."""

from __future__ import annotations
