"""Names of objects: ``/hatrac/<table>/<md5>.<quoted filename>``, with ``:<version>`` in a URL."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes

from deriva_ml_core.errors import InvalidFileName, UnknownAddress

__all__ = [
    "FOLDER_OBJECT_VERSION",
    "HatracObjectName",
    "ObjectName",
    "S3ObjectName",
    "check_filename",
    "parse_object_path",
    "parse_object_url",
    "parse_s3_url",
]


FOLDER_OBJECT_VERSION = "1"
"""Version of every object in a folder or S3 store. The name contains the digest, so there is never a second version."""

MAX_QUOTED_NAME_LENGTH = 180
"""Bytes of a quoted file name. With digest and version, a server accepted 240 bytes and refused 260."""

VERSION_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
OBJECT_PATH_PATTERN = re.compile(r"/hatrac(?:/[^/?#;:\\\x00-\x1f\x7f]+)+(?::[A-Za-z0-9_-]+)?")
"""Path with a version, as this software writes it, or without one, as rows of other clients may have it."""

UNQUOTED_CHARACTERS = "/:%!$&'()*+,=@~"

_FOLDER_OBJECT_URL = re.compile(
    rf"/hatrac/([^/:.]+|[^/:]*[^/:.][^/:]*)/([0-9a-f]{{32}})\.([^/:]+):{FOLDER_OBJECT_VERSION}"
)

_S3_OBJECT_URL = re.compile(
    rf"(/hatrac/(?!\.\.?/)[A-Za-z0-9_.~%-]+/[0-9a-f]{{32}}\.[A-Za-z0-9_.~%-]+):{FOLDER_OBJECT_VERSION}"
)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """Name of an object.

    Args:
        table: The asset table.
        md5: MD5 of the bytes, 32 hex digits.
        filename: The file's name, with sub-folders separated by ``/``.
        root: The namespace that contains all objects.
    """

    table: str
    md5: str
    filename: str
    root: str = "/hatrac"

    @property
    def namespace(self) -> str:
        """Path of the namespace that contains the object."""
        return f"{self.root}/{_quote(self.table)}"

    @property
    def path(self) -> str:
        """Path of the object. Separators are quoted, also the ``/`` between sub-folders."""
        return f"{self.namespace}/{self.md5}.{self._quoted_filename}"

    def url(self, version: str) -> str:
        """Return the versioned URL."""
        return f"{self.path}:{version}"

    @property
    def _quoted_filename(self) -> str:
        return _quote(self.filename)


@dataclass(frozen=True, slots=True)
class HatracObjectName(ObjectName):
    """Name of an object on a server, which limits the length of names and accepts Unicode only.

    Raises:
        InvalidFileName: The name leaves its folder, or is not Unicode.
    """

    def __post_init__(self) -> None:
        try:
            check_filename(self.filename).encode()
        except UnicodeEncodeError as error:
            raise InvalidFileName(
                f"{self.filename!r} cannot name an object on a server: it is not Unicode. Rename the file."
            ) from error

    @property
    def content_disposition(self) -> str:
        """Header that gives a browser the file's name, without folders."""
        name = self.filename.rpartition("/")[2].replace("\\", "_")  # Windows separates folders by backslashes
        return f"filename*=UTF-8''{_quote(name)}"

    @property
    def media_type(self) -> str:
        """Media type that the file name suggests."""
        return mimetypes.guess_type(self.filename, strict=False)[0] or "application/octet-stream"

    def versioned_url(self, location: str) -> str | None:
        """Return the URL with the version of a server's response, or None if the response names another object."""
        path, _, version = location.strip().rpartition(":")
        if unquote(path) != unquote(self.path) or not VERSION_PATTERN.fullmatch(version):
            return None
        return self.url(version)

    @property
    def _quoted_filename(self) -> str:
        return _quote_shortened(self.filename)


@dataclass(frozen=True, slots=True)
class S3ObjectName(HatracObjectName):
    """Name of an object in an S3 store, which limits the length of names.

    Raises:
        InvalidFileName: The name leaves its folder.
    """

    def __post_init__(self) -> None:
        check_filename(self.filename)  # the quoted name is ASCII, also if the file name is not Unicode


def _quote_shortened(filename: str) -> str:
    """Quote a name, and shorten it if the server's disk would refuse its length. The row has the whole name."""
    whole = _quote(filename)
    if len(whole) <= MAX_QUOTED_NAME_LENGTH:
        return whole
    digest = hashlib.sha256(os.fsencode(filename)).hexdigest()[:16]
    suffix = _quote(filename[filename.rindex(".") :]) if "." in filename else ""
    suffix = suffix if len(suffix) <= 20 else ""
    length = MAX_QUOTED_NAME_LENGTH - len(digest) - len(suffix) - 1
    return re.sub(r"%[0-9A-F]?$", "", whole[:length]) + f"~{digest}{suffix}"


def _quote(text: str) -> str:
    return quote(os.fsencode(text), safe="")


def _unquote(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


def parse_object_path(url: str, server: str) -> str:
    """Return the quoted path of an object on a server.

    Args:
        url: The path, or the full URL.
        server: Address of the server. Objects on other servers are refused.

    Raises:
        UnknownAddress: The URL does not name an object of that server.
    """
    path = url.removeprefix(server)
    if not OBJECT_PATH_PATTERN.fullmatch(path) or any(part in (".", "..") for part in unquote(path).split("/")):
        raise _unknown_object_error(url, server, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return quote(path, safe=UNQUOTED_CHARACTERS)


def parse_object_url(url: str) -> ObjectName:
    """Return the name of an object in a folder store.

    Raises:
        UnknownAddress: The text is not the URL of an object in a folder store.
    """
    match = _FOLDER_OBJECT_URL.fullmatch(url)
    name = match and ObjectName(_unquote(match[1]), match[2], _unquote(match[3]))
    if not name or name.url(FOLDER_OBJECT_VERSION) != url:
        raise _unknown_object_error(url, "a folder store", FOLDER_OBJECT_VERSION)
    return name


def parse_s3_url(url: str) -> str:
    """Return the path of an object in an S3 store, without its version.

    Raises:
        UnknownAddress: The text is not the URL of an object in an S3 store.
    """
    if (match := _S3_OBJECT_URL.fullmatch(url)) is None:
        raise _unknown_object_error(url, "an S3 store", FOLDER_OBJECT_VERSION)
    return match[1]


def _unknown_object_error(url: str, store: str, version: str) -> UnknownAddress:
    return UnknownAddress(
        f"{url!r} is not the URL of an object of {store}; expected a URL such as "
        f"'/hatrac/Image/900150983cd24fb0d6963f7d28e17f72.a.png:{version}'."
    )


def check_filename(filename: str) -> str:
    """Return a file name unchanged, or raise `InvalidFileName` if it is empty or leaves its folder."""
    parts = filename.split("/")
    if "\0" in filename or any(part in ("", ".", "..") for part in parts):
        raise InvalidFileName(
            f"{filename!r} cannot name an object: use a name, or folders and a name joined by '/', without '..'."
        )
    return filename
