"""The names of objects in Hatrac: ``/hatrac/<table>/<md5>.<quoted filename>``, with ``:<version>`` in a URL."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes

from deriva_ml_core.errors import InvalidFileName, UnknownAddress

__all__ = ["FolderObjectName", "HatracObjectName", "check_filename", "parse_object_path", "parse_object_url"]


MAX_QUOTED_NAME_LENGTH = 180
"""Bytes of a quoted file name: with digest and version, 240 were taken by a server and 260 were not."""

VERSION_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
OBJECT_PATH_PATTERN = re.compile(r"/hatrac(?:/[^/?#;:\\\x00-\x1f\x7f]+)+(?::[A-Za-z0-9_-]+)?")
"""With a version as we write it, or without, as other clients' rows may have it."""

UNQUOTED_CHARACTERS = "/:%!$&'()*+,=@~"


@dataclass(frozen=True, slots=True)
class HatracObjectName:
    """What names an object.

    Args:
        table: The asset table.
        md5: The MD5 of the bytes, 32 hex digits.
        filename: The file's name, sub-folders included.
        root: The namespace that all objects of ours lie in.

    Raises:
        InvalidFileName: The name climbs out of its folder, or is not Unicode.
    """

    table: str
    md5: str
    filename: str
    root: str = "/hatrac"

    def __post_init__(self) -> None:
        try:
            check_filename(self.filename).encode()
        except UnicodeEncodeError as error:
            raise InvalidFileName(
                f"{self.filename!r} cannot name an object on a server: it is not Unicode; rename the file."
            ) from error

    @property
    def path(self) -> str:
        """Its path; what could be taken for a separator is quoted, sub-folders' ``/`` too."""
        return f"{self.namespace}/{self.md5}.{_quote_filename(self.filename)}"

    @property
    def namespace(self) -> str:
        """The path of what holds it."""
        return f"{self.root}/{quote(self.table, safe='')}"

    @property
    def content_disposition(self) -> str:
        """The header that gives a browser the file's name, without folders."""
        plain = self.filename.rpartition("/")[2].replace("\\", "_")  # a divider too
        return f"filename*=UTF-8''{quote(plain, safe='')}"

    @property
    def media_type(self) -> str:
        """The media type that the name suggests."""
        return mimetypes.guess_type(self.filename, strict=False)[0] or "application/octet-stream"

    def versioned_url(self, location: str) -> str | None:
        """The URL that a server answered with, put together from what we know; None if it names another object."""
        path, _, version = location.strip().rpartition(":")
        if unquote(path) != unquote(self.path) or not VERSION_PATTERN.fullmatch(version):
            return None
        return f"{self.path}:{version}"


def _quote_filename(filename: str) -> str:
    """A quoted name that is not too long for the server's disk: the row keeps it whole."""
    whole = quote(filename, safe="")
    if len(whole) <= MAX_QUOTED_NAME_LENGTH:
        return whole
    mark = hashlib.sha256(filename.encode()).hexdigest()[:16]
    ending = quote(filename[filename.rindex(".") :], safe="") if "." in filename else ""
    ending = ending if len(ending) <= 20 else ""
    room = MAX_QUOTED_NAME_LENGTH - len(mark) - len(ending) - 1
    return re.sub(r"%[0-9A-F]?$", "", whole[:room]) + f"~{mark}{ending}"


def parse_object_path(url: str, server: str) -> str:
    """The path of an object that a row names.

    Args:
        url: The path itself, or the whole URL.
        server: The address of the server: an object elsewhere is not ours to bring.

    Raises:
        UnknownAddress: It does not name an object of that server.
    """
    path = url.removeprefix(server)
    if not OBJECT_PATH_PATTERN.fullmatch(path) or any(part in (".", "..") for part in unquote(path).split("/")):
        raise UnknownAddress(
            f"{url!r} does not name an object of {server}: that looks like "
            "'/hatrac/Image/900150983cd24fb0d6963f7d28e17f72.a.png:ABCDEFGHIJKLMNOPQRSTUVWXYZ'."
        )
    return quote(path, safe=UNQUOTED_CHARACTERS)


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


def check_filename(filename: str) -> str:
    """Return a file's name unchanged, or raise `InvalidFileName` where it is empty or climbs out of its folder."""
    parts = filename.split("/")
    if "\0" in filename or any(part in ("", ".", "..") for part in parts):
        raise InvalidFileName(
            f"{filename!r} cannot name an object: give a name, or folders and a name joined by '/', without '..'."
        )
    return filename
