"""The names under which files may be stored, in every store."""

from __future__ import annotations

from deriva_ml_core.errors import InvalidFileName

__all__ = ["check_filename"]


def check_filename(filename: str) -> str:
    """Return a file's name unchanged, or raise `InvalidFileName` where it is empty or climbs out of its folder."""
    parts = filename.split("/")
    if "\0" in filename or any(part in ("", ".", "..") for part in parts):
        raise InvalidFileName(
            f"{filename!r} cannot name an object: give a name, or folders and a name joined by '/', without '..'."
        )
    return filename
