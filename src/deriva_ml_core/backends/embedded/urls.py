"""The URLs that name objects: ``/hatrac/<table>/<md5>.<quoted filename>:<version>``, as Hatrac would."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from deriva_ml_core.errors import UnknownAddress

__all__ = ["ObjectName", "parse"]

VERSION = "1"
"""The name holds the digest, so that there is never a second version of an object."""

_URL = re.compile(rf"/hatrac/([^/:.]+|[^/:]*[^/:.][^/:]*)/([0-9a-f]{{32}})\.([^/:]+):{VERSION}")


@dataclass(frozen=True, slots=True)
class ObjectName:
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
        return f"/hatrac/{_quoted(self.table)}/{self.md5}.{_quoted(self.filename)}:{VERSION}"


def _quoted(text: str) -> str:
    return quote(os.fsencode(text), safe="")


def parse(url: str) -> ObjectName:
    """Take an object's URL apart.

    Raises:
        UnknownAddress: It is not the URL of an object of a folder store.
    """
    found = _URL.fullmatch(url)
    name = found and ObjectName(_plain(found[1]), found[2], _plain(found[3]))
    if not name or name.url != url:
        raise UnknownAddress(
            f"{url!r} does not name an object of a folder store: that looks like "
            f"'/hatrac/Image/900150983cd24fb0d6963f7d28e17f72.a.png:{VERSION}'."
        )
    return name


def _plain(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))
