"""Objects of a bucket: whether they exist, what they contain, and what the service guarantees about them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.partial_download import compute_received
from deriva_ml_core.backends.http_connection import TransferTooSlow
from deriva_ml_core.backends.s3.part_digests import encode_md5
from deriva_ml_core.backends.s3.s3_client import S3Client, ServiceRefusal
from deriva_ml_core.errors import StoreUnavailable

__all__ = ["PROBE_CONTENT", "PROBE_NAME", "S3Objects"]

READ_SIZE = 2**20

PROBE_NAME = "/hatrac/deriva-ml-store.txt"
"""Path of the object whose second creation shows whether the service honours conditions."""

PROBE_CONTENT = b"deriva-ml stores files here, and creates this object to find out whether it can be overwritten.\n"

_MD5_PATTERN = re.compile(r"[0-9a-f]{32}(?:-\d+)?")
_OWN_KEY_HEADERS = ("SSEKMSKeyId", "SSECustomerAlgorithm", "SSECustomerKeyMD5")
_UNSUPPORTED_CODES = ("NotImplemented", "InvalidArgument", "InvalidRequest", "BadRequest", "MalformedHeader")


class S3Objects:
    """Objects of a bucket.

    Args:
        client: The bucket.
    """

    def __init__(self, client: S3Client) -> None:
        self.client = client
        self._lock = ForkSafeRLock()
        self._honours_conditions: bool | None = None
        self._has_md5_etags: bool | None = None

    def honours_conditions(self, timeout: tuple[float, float]) -> bool:
        """Whether the service refuses to create an object that exists. Found out once, with one or two requests.

        Args:
            timeout: Seconds to connect, and to wait for a response.

        Raises:
            StoreUnavailable, AccessRefused, LoginRequired: As for every request.
        """
        with self._lock:
            if self._honours_conditions is None:
                self._honours_conditions = self._is_second_creation_refused(timeout)
            return self._honours_conditions

    def _is_second_creation_refused(self, timeout: tuple[float, float]) -> bool:
        for _ in range(2):  # the first creation may be that of an earlier process
            try:
                self._put_probe(timeout, {"IfNoneMatch": "*"})
            except ServiceRefusal as refusal:
                if refusal.code not in _UNSUPPORTED_CODES:
                    return True
                self._put_probe(timeout, {})
                return False
        return False

    def _put_probe(self, timeout: tuple[float, float], condition: Mapping[str, str]) -> None:
        parameters = {
            "Key": self.client.address.key(PROBE_NAME),
            "Body": PROBE_CONTENT,
            "ContentMD5": encode_md5(hashlib.md5(PROBE_CONTENT, usedforsecurity=False).digest()),
            "ContentType": "text/plain",
            **condition,
        }
        allowed = ("PreconditionFailed", "ConditionalRequestConflict", *(_UNSUPPORTED_CODES if condition else ()))
        self.client.request("put_object", "the check of the store", timeout, parameters, allowed=allowed)

    def is_expected_etag(
        self, response: Mapping[str, Any], expected: frozenset[str], timeout: tuple[float, float]
    ) -> bool:
        """Whether a response has one of the expected entity tags, or one that says nothing about the bytes.

        A service that encrypts with a key of the user's, and a few others, have entity tags that are no MD5.

        Args:
            response: Response with an entity tag.
            expected: The entity tags that the service gives these bytes.
            timeout: Seconds to connect, and to wait for a response.
        """
        etag = _read_etag(response)
        if etag in expected or not _MD5_PATTERN.fullmatch(etag) or any(name in response for name in _OWN_KEY_HEADERS):
            return True
        return not self._are_etags_md5(timeout)

    def _are_etags_md5(self, timeout: tuple[float, float]) -> bool:
        """Whether the entity tag of an object with known bytes is their MD5."""
        if self._has_md5_etags is None:
            self.honours_conditions(timeout)  # creates the object
            key = self.client.address.key(PROBE_NAME)
            response = self.client.request("head_object", PROBE_NAME, timeout, {"Key": key})
            digest = hashlib.md5(PROBE_CONTENT, usedforsecurity=False).hexdigest()
            self._has_md5_etags = _read_etag(response) == digest
        return self._has_md5_etags

    def has_bytes(
        self,
        key: str,
        md5: str,
        length: int,
        etags: frozenset[str],
        timeout: tuple[float, float],
        *,
        trust_metadata: bool = True,
    ) -> bool | None:
        """Whether an object has these bytes; None if there is no such object, or the user may not see that.

        Args:
            key: Key of the object.
            md5: Expected MD5, 32 hex digits.
            length: Expected number of bytes.
            etags: Entity tags that prove the bytes.
            timeout: Seconds to connect, and to wait for a response.
            trust_metadata: Whether the MD5 that the object's creator noted proves the bytes too.
        """
        try:
            allowed = ("NotFound", "NoSuchKey", "AccessDenied")
            response = self.client.request("head_object", key, timeout, {"Key": key}, allowed=allowed)
        except ServiceRefusal:
            return None
        if response.get("ContentLength") != length:
            return False
        metadata = {name.lower(): value for name, value in response.get("Metadata", {}).items()}
        etag = _read_etag(response)
        if etag in etags or (trust_metadata and metadata.get("md5") == md5):
            return True
        return self.compute_md5(key, length, timeout) == (md5, length)

    def compute_md5(self, key: str, length: int, timeout: tuple[float, float]) -> tuple[str, int]:
        """Return the MD5 and the number of the bytes of an object, of which at most one block more is read."""
        return compute_received(self.iter_bytes(key, 0, timeout), length)

    def iter_bytes(self, key: str, start: int, timeout: tuple[float, float]) -> Iterator[bytes]:
        """Yield an object's bytes from an offset; none if the service does not support the range.

        Raises:
            ChecksumMismatch: There is no such object.
            StoreUnavailable: The download was interrupted.
        """
        parameters = {"Key": key, **({"Range": f"bytes={start}-"} if start else {})}
        try:
            response = self.client.request("get_object", key, timeout, parameters, allowed=("InvalidRange",))
        except ServiceRefusal:
            return
        body = response["Body"]
        try:
            if start and not str(response.get("ContentRange", "")).startswith(f"bytes {start}-"):
                return
            while piece := body.read(READ_SIZE):
                yield piece
        except (boto.BotoCoreError, HTTPError, TransferTooSlow, OSError) as error:
            reason = str(error) if isinstance(error, TransferTooSlow) else type(error).__name__
            raise StoreUnavailable(
                f"The download of {key} from {self.client.service} was interrupted ({reason}). Repeat the call to "
                "resume it."
            ) from error
        finally:
            body.close()


def _read_etag(response: Mapping[str, Any]) -> str:
    return str(response.get("ETag", "")).removeprefix("W/").strip('"')
