"""The URLs that name objects: ``/hatrac/<table>/<md5>.<quoted filename>:<version>``, as Hatrac would."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from deriva_ml_core.errors import UnknownAddress

__all__ = ["FolderObjectName", "parse_object_url"]

FOLDER_OBJECT_VERSION = "1"
"""The name holds the digest, so that there is never a second version of an object."""

_FOLDER_OBJECT_URL = re.compile(
    rf"/hatrac/([^/:.]+|[^/:]*[^/:.][^/:]*)/([0-9a-f]{{32}})\.([^/:]+):{FOLDER_OBJECT_VERSION}"
)


@dataclass(frozen=True, slots=True)
class FolderObjectName:
    """What names an object.

    Args:
        table: The asset table.
        md5: The MD5 of the bytes, 32 hex digits.
        filename: The file's name, sub-folders included.
    """

    table: str
    md5: str
    filename: str

    @property
    def url(self) -> str:
        """The versioned URL; what could be taken for a separator is quoted, sub-folders' ``/`` too."""
        return f"/hatrac/{_quote(self.table)}/{self.md5}.{_quote(self.filename)}:{FOLDER_OBJECT_VERSION}"


def _quote(text: str) -> str:
    return quote(os.fsencode(text), safe="")


def parse_object_url(url: str) -> FolderObjectName:
    """Take an object's URL apart.

    Raises:
        UnknownAddress: It is not the URL of an object of a folder store.
    """
    found = _FOLDER_OBJECT_URL.fullmatch(url)
    name = found and FolderObjectName(_unquote(found[1]), found[2], _unquote(found[3]))
    if not name or name.url != url:
        raise UnknownAddress(
            f"{url!r} does not name an object of a folder store: that looks like "
            f"'/hatrac/Image/900150983cd24fb0d6963f7d28e17f72.a.png:{FOLDER_OBJECT_VERSION}'."
        )
    return name


def _unquote(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))
