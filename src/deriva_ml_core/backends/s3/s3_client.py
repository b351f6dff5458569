"""Single requests to an S3 service, with failures translated to this package's errors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import botocore.session
from botocore import exceptions as boto
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._text import sanitize_line
from deriva_ml_core.backends.file_content import FileChanged
from deriva_ml_core.backends.http_connection import BodyRefused, TransferTooSlow, root_cause_message
from deriva_ml_core.backends.s3.s3_address import S3Address
from deriva_ml_core.backends.s3.s3_transport import LimitedSession
from deriva_ml_core.errors import (
    AccessRefused,
    ChecksumMismatch,
    ConfigurationError,
    DerivaMLException,
    DiskFull,
    LoginRequired,
    StoreUnavailable,
    UnknownAddress,
)

__all__ = ["DEFAULT_REGION", "S3Client", "ServiceRefusal"]

DEFAULT_REGION = "us-east-1"
"""Region if neither the address nor the user's configuration names one; other services than Amazon's ignore it."""

MAX_RETRY_AFTER = 60.0
"""Longest pause in seconds that a Retry-After header can request."""

CREDENTIAL_HELP = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile of ~/.aws with AWS_PROFILE, or run on a machine "
    "with a role."
)

_AMAZON_PATTERN = re.compile(r"https://[a-z0-9.-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws|amazonaws\.eu)/*")

_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.SSOTokenLoadError,
    boto.NoAuthTokenError,
)
_CONNECTION_ERRORS = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    BodyRefused,
    TransferTooSlow,
    HTTPError,
)
_LOGIN_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_CODES_BY_STATUS = {
    "301": "PermanentRedirect",
    "400": "BadRequest",
    "403": "AccessDenied",
    "404": "NotFound",
    "405": "MethodNotAllowed",
    "409": "OperationAborted",
    "412": "PreconditionFailed",
    "416": "InvalidRange",
    "501": "NotImplemented",
    "507": "InsufficientStorage",
}
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
    }
)
_FULL_CODES = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})


class ServiceRefusal(Exception):
    """A service refused a request with a code that the caller handles.

    Args:
        code: Code of S3's protocol, such as ``PreconditionFailed``, also for a response without a text.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class S3Client:
    """Client for the objects of one bucket. Threads and forked processes can share it.

    Credentials are found as by Amazon's own tools: the environment, the profiles in ``~/.aws``, and the role of the
    machine. They are used to sign requests, and appear in no message.

    Args:
        address: Address of the store.
        sleep: Function that waits a number of seconds.
    """

    def __init__(self, address: S3Address, sleep: Callable[[float], None] = time.sleep) -> None:
        self.address, self.sleep = address, sleep
        self._lock = ForkSafeRLock()
        self._clients: dict[tuple[int, tuple[float, float]], tuple[Any, LimitedSession]] = {}
        """Clients of botocore by process and timeouts; a forked process must not use its parent's sockets."""

    def __repr__(self) -> str:
        return f"S3Client({str(self.address)!r})"

    @property
    def service(self) -> str:
        """The service and the bucket, for messages."""
        host = self.address.endpoint.partition("://")[2] or "Amazon S3"
        return f"the bucket {self.address.bucket} on {host}"

    def request(
        self,
        operation: str,
        subject: str,
        timeout: tuple[float, float],
        parameters: Mapping[str, object],
        *,
        allowed: tuple[str, ...] = (),
        pause: bool = True,
    ) -> dict[str, Any]:
        """Send one request, without repeats.

        Args:
            operation: Method of botocore's client.
            subject: What the request is for, in messages.
            timeout: Seconds to connect, and to wait for the response.
            parameters: Parameters of the operation, besides the bucket.
            allowed: Codes of refusals that the caller handles.
            pause: Whether to wait as long as a busy service asks for.

        Returns:
            The response.

        Raises:
            ServiceRefusal: The service refused the request with one of the allowed codes.
            FileChanged: The body's file became shorter.
            StoreUnavailable: The same request may succeed later.
            LoginRequired, AccessRefused: The user has no access.
        """
        try:
            client = self._client(timeout)
            response: dict[str, Any] = getattr(client, operation)(Bucket=self.address.bucket, **parameters)
        except boto.ClientError as error:
            raise self._refusal(error, subject, allowed, pause=pause) from error
        except FileChanged:
            raise
        except Exception as error:
            if isinstance(inner := getattr(error, "kwargs", {}).get("error"), FileChanged):
                raise inner from None
            if (translated := self.translate(error, subject)) is None:
                raise
            raise translated from error
        return response

    def presign(self, key: str, seconds: int, parameters: Mapping[str, str]) -> str:
        """Return a URL with which anyone can read an object for some time.

        Args:
            key: Key of the object.
            seconds: How long the URL can be used.
            parameters: Parameters of the request for the object, such as its content type.
        """
        try:
            url: str = self._client((6.0, 60.0)).generate_presigned_url(
                "get_object", Params={"Bucket": self.address.bucket, "Key": key, **parameters}, ExpiresIn=seconds
            )
        except boto.BotoCoreError as error:
            raise self.translate(error, key) or error from error
        return url

    def endpoint_url(self) -> str:
        """Return the URL of the service."""
        if self.address.endpoint:
            return self.address.endpoint
        url: str = self._client((6.0, 60.0)).meta.endpoint_url
        return url

    def complete_address(self) -> S3Address:
        """Return the address with the endpoint and the region that the user's configuration has for it."""
        session = _create_session()
        try:
            region = self.address.region or session.get_config_variable("region") or ""
            if self.address.endpoint:
                return replace(self.address, region=region)
            config = Config(region_name=region or DEFAULT_REGION)
            endpoint = session.create_client("s3", config=config).meta.endpoint_url
        except boto.BotoCoreError as error:
            raise self.translate(error, "the endpoint") or error from error
        if _AMAZON_PATTERN.fullmatch(endpoint):
            return replace(self.address, region=region or DEFAULT_REGION)
        return S3Address.parse(str(replace(self.address, endpoint=endpoint, region=region)))

    def close(self) -> None:
        """Close idle connections. The next request opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for (pid, _), (_, session) in clients.items():
            if pid == os.getpid():
                session.close()

    def translate(self, error: Exception, subject: str) -> DerivaMLException | None:
        """Return the error for a failure without a response; None for an error that is not one of the connection."""
        match error:
            case boto.SSLError():
                return StoreUnavailable(
                    f"The certificate of {self.service} cannot be verified ({_reason(error)}). Set AWS_CA_BUNDLE to "
                    "the certificates of your service."
                )
            case _ if isinstance(error, _CREDENTIAL_ERRORS):
                return LoginRequired(
                    f"No credentials for {self.service} were found ({type(error).__name__}). {CREDENTIAL_HELP}"
                )
            case boto.ProfileNotFound():
                return ConfigurationError(f"{error}: choose a profile of ~/.aws with AWS_PROFILE.")
            case _ if isinstance(error, _CONNECTION_ERRORS):
                return StoreUnavailable(
                    f"No usable response from {self.service} for {subject} ({_reason(error)}). Try again later."
                )
            case ResponseParserError():
                return StoreUnavailable(
                    f"The response of {self.service} for {subject} is damaged. Try again later, and check for a proxy."
                )
            case boto.BotoCoreError():
                return ConfigurationError(
                    f"The request for {subject} to {self.service} cannot be made ({type(error).__name__}). Check the "
                    "configuration in ~/.aws."
                )
        return None

    def _client(self, timeout: tuple[float, float]) -> Any:
        with self._lock:
            name = (os.getpid(), timeout)
            if name not in self._clients:
                self._clients[name] = self._create_client(timeout)
            return self._clients[name][0]

    def _create_client(self, timeout: tuple[float, float]) -> tuple[Any, LimitedSession]:
        session = _create_session()
        region = self.address.region or session.get_config_variable("region") or DEFAULT_REGION
        config = Config(
            region_name=region,
            signature_version="s3v4",
            connect_timeout=timeout[0],
            read_timeout=timeout[1],
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",  # the MD5 is known, and every service checks it
            response_checksum_validation="when_required",
            ignore_configured_endpoint_urls=True,  # the catalog's address counts, so that all clients find the objects
            s3={"addressing_style": "path" if self.address.endpoint else "auto"},
            user_agent_extra="deriva-ml-core",
        )
        endpoint = self.address.endpoint or None
        client = session.create_client("s3", endpoint_url=endpoint, config=config)
        verify = session.get_config_variable("ca_bundle") or True
        transport = LimitedSession(timeout, verify, get_environ_proxies(client.meta.endpoint_url))
        client.meta.events.register("before-send.s3", lambda request, **_: transport.send(request))
        # a body is sent at once: it is at most one part, and waiting for leave costs a round trip for each file
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client, transport

    def _refusal(
        self, error: boto.ClientError, subject: str, allowed: tuple[str, ...], *, pause: bool
    ) -> ServiceRefusal | DerivaMLException:
        details = error.response.get("ResponseMetadata", {})
        status = int(details.get("HTTPStatusCode", 0))
        code = sanitize_line(str(error.response.get("Error", {}).get("Code", "")))[:60]
        code = _CODES_BY_STATUS.get(code or str(status), code)
        if code in allowed:
            return ServiceRefusal(code)
        if code in _TRANSIENT_CODES or status in (429, 500, 502, 503, 504):
            if pause and (seconds := _retry_after(details.get("HTTPHeaders", {}))):
                self.sleep(seconds)
            return StoreUnavailable(
                f"{self._subject} cannot process {subject} now ({code or status}). Try again later."
            )
        return self._refusal_by_code(code, status, subject)

    @property
    def _subject(self) -> str:
        return self.service[0].upper() + self.service[1:]

    def _refusal_by_code(self, code: str, status: int, subject: str) -> DerivaMLException:
        if code == "NoSuchBucket":
            return UnknownAddress(f"{self._subject} does not exist. Check the address, or create the bucket.")
        if code in ("NoSuchKey", "NotFound"):
            return ChecksumMismatch(f"The object {subject} is lost: {self.service} has no such object.")
        if code in _LOGIN_CODES:
            return LoginRequired(f"{self._subject} does not accept the credentials ({code}). {CREDENTIAL_HELP}")
        if code == "RequestTimeTooSkewed":
            return ConfigurationError(f"The clock of this machine differs from that of {self.service}. Set the clock.")
        if code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"):
            return ConfigurationError(
                f"{self._subject} is in another region. Name it in the address: &region=<region>."
            )
        if code in _FULL_CODES:
            return DiskFull(f"{self._subject} has no space for {subject} ({code}). Raise its quota, and upload again.")
        if status in (401, 403):
            return AccessRefused(
                f"{self._subject} denies access to {subject} ({code}). Ask its owner for the rights to read and write "
                "objects, and to list the bucket, without which a missing object looks like a forbidden one."
            )
        return ConfigurationError(f"{self._subject} rejects the request for {subject} ({code or status}).")


def _create_session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _data_loader())
    return session


@cache
def _data_loader() -> Loader:
    """Return the descriptions of the services, which take a quarter of a second to parse."""
    return create_loader()


def _reason(error: Exception) -> str:
    if isinstance(error, (BodyRefused, TransferTooSlow)):
        return str(error)
    inner = getattr(error, "kwargs", {}).get("error")
    return root_cause_message(inner) if isinstance(inner, BaseException) else type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, min(MAX_RETRY_AFTER, float(headers.get("retry-after", ""))))
    except ValueError:
        return 0.0
