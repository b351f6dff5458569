"""Address of an S3 store: ``s3://<bucket>/<prefix>?endpoint=https://<host>&region=<region>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from deriva_ml_core.errors import UnknownAddress

__all__ = ["S3Address"]

_BUCKET_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_PREFIX_PATTERN = re.compile(r"[A-Za-z0-9_.~=+@-]+(?:/[A-Za-z0-9_.~=+@-]+)*")
_REGION_PATTERN = re.compile(r"[A-Za-z0-9-]{1,40}")
_ENDPOINT_PATTERN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:]+\])(?P<port>:\d{1,5})?(?P<path>(?:/[\w.~-]+)*)/*", re.I
)
_LOOPBACK_PATTERN = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]", re.I)
_EXAMPLE = "s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1"
_MAX_PREFIX_LENGTH = 200


@dataclass(frozen=True, slots=True)
class S3Address:
    """Address of a store. It never has a login.

    Args:
        bucket: Name of the bucket.
        prefix: Path of all objects in the bucket, without slashes at its ends. Empty for the whole bucket.
        endpoint: URL of the service. Empty for Amazon S3.
        region: Region of the bucket. Empty if it is not set.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""

    @classmethod
    def parse(cls, text: str) -> S3Address:
        """Return the address that a text names.

        Args:
            text: ``s3://<bucket>/<prefix>``, with ``endpoint`` and ``region`` as its query, in any order.

        Raises:
            UnknownAddress: The text has another form, a login, an unknown setting, or an endpoint without encryption on
                another machine.
        """
        if not text.startswith("s3://"):
            raise _malformed("it does not start with s3://")
        if not text.isprintable():
            raise _malformed("it has a character that cannot be printed")
        try:
            parts = urlsplit(text)
            settings = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise _malformed("its query is not name=value&name=value") from None
        if "@" in parts.netloc or ":" in parts.netloc:
            raise _malformed("it has a login or a port where only the bucket belongs")
        unknown = sorted({name for name, _ in settings} - {"endpoint", "region"})
        if unknown or parts.fragment:
            raise _malformed("only endpoint and region can follow the question mark, once each")
        if len(settings) > len(dict(settings)):
            raise _malformed("a setting is given twice")
        if not _BUCKET_PATTERN.fullmatch(parts.netloc):
            raise _malformed("it has no valid bucket")
        values = dict(settings)
        return cls(
            parts.netloc,
            _check_prefix(parts.path.strip("/")),
            _check_endpoint(values.get("endpoint", "")),
            _check_region(values.get("region", "")),
        )

    def __str__(self) -> str:
        settings = [f"{name}={quote(value, safe=':/[]')}" for name, value in self._settings if value]
        path = f"/{self.prefix}" if self.prefix else ""
        return f"s3://{self.bucket}{path}{'?' if settings else ''}{'&'.join(settings)}"

    @property
    def place(self) -> tuple[str, str]:
        """The endpoint and the bucket, which a user confirms before the first use."""
        return self.endpoint, self.bucket

    def key(self, path: str) -> str:
        """Return the key of an object.

        Args:
            path: Path of the object in the store, starting with a slash.
        """
        return f"{self.prefix}{path}" if self.prefix else path[1:]

    @property
    def _settings(self) -> tuple[tuple[str, str], ...]:
        return ("endpoint", self.endpoint), ("region", self.region)


def _check_prefix(prefix: str) -> str:
    if not prefix:
        return ""
    if not _PREFIX_PATTERN.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise _malformed("its prefix may only have letters, digits, and _ . ~ = + @ - in folders")
    if len(prefix) > _MAX_PREFIX_LENGTH:
        raise _malformed(f"its prefix is longer than {_MAX_PREFIX_LENGTH} characters")
    return prefix


def _check_endpoint(endpoint: str) -> str:
    if not endpoint:
        return ""
    match = _ENDPOINT_PATTERN.fullmatch(endpoint)
    if match is None:
        raise _malformed("its endpoint is not https://<host>, and a login does not belong there")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if scheme == "http" and not _LOOPBACK_PATTERN.fullmatch(host):
        raise _malformed(f"its endpoint would send everything unencrypted: use https://{host}{match['port'] or ''}")
    return f"{scheme}://{host}{match['port'] or ''}{match['path']}"


def _check_region(region: str) -> str:
    if region and not _REGION_PATTERN.fullmatch(region):
        raise _malformed("its region may only have letters, digits and hyphens")
    return region


def _malformed(reason: str) -> UnknownAddress:
    """Return the error, without the text, which may have a secret."""
    return UnknownAddress(
        f"The address of the store cannot be used: {reason}. Use an address such as {_EXAMPLE!r}. Credentials come "
        "from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from a profile in ~/.aws, or from the role of the machine."
    )
