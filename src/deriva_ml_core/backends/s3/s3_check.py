"""Checks of an S3 store: whether it can be written and read, and what its bucket should be configured to do."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import StoreCheck
from deriva_ml_core.backends.s3.s3_client import ServiceRefusal
from deriva_ml_core.backends.s3.s3_objects import PROBE_CONTENT, PROBE_NAME
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException

if TYPE_CHECKING:
    from deriva_ml_core.backends.s3.store import S3Store

__all__ = ["check_s3_store"]

TIMEOUT = (6.0, 60.0)
ABANDONED_AFTER = timedelta(days=7)
LIFECYCLE_REMEDY = "let a lifecycle rule of the bucket abort incomplete multipart uploads after 7 days"


def check_s3_store(store: S3Store) -> list[StoreCheck]:
    """Check a store with a few requests. Its object for tests is created if it does not exist."""
    try:
        is_conditional = store.objects.honours_conditions(TIMEOUT)
        _read_probe(store)
    except DerivaMLException as error:
        return [StoreCheck(str(error), "see the message", is_error=True)]
    checks = [StoreCheck(f"{store.address} can be written and read")]
    if is_conditional:
        checks.append(StoreCheck("the service refuses to overwrite an object"))
    else:
        message = "the service overwrites objects although it is told not to; each file is looked up before and after"
        checks.append(StoreCheck(message, "turn on the bucket's versioning, or use a service with conditional writes"))
    return [*checks, _check_incomplete_uploads(store), _check_lifecycle(store)]


def _read_probe(store: S3Store) -> None:
    digest = hashlib.md5(PROBE_CONTENT, usedforsecurity=False).hexdigest()
    key = store.address.key(PROBE_NAME)
    if store.objects.compute_md5(key, len(PROBE_CONTENT), TIMEOUT) != (digest, len(PROBE_CONTENT)):
        raise ChecksumMismatch(f"The object {key} has other bytes than those that were written. Delete it.")


def _check_incomplete_uploads(store: S3Store) -> StoreCheck:
    try:
        count = sum(1 for _ in store.find_incomplete_uploads(ABANDONED_AFTER))
    except DerivaMLException as error:
        return StoreCheck(f"incomplete uploads cannot be listed: {error}", "allow s3:ListBucketMultipartUploads")
    if count:
        return StoreCheck(f"{count} uploads were started over 7 days ago and never completed", LIFECYCLE_REMEDY)
    return StoreCheck("no upload was abandoned")


def _check_lifecycle(store: S3Store) -> StoreCheck:
    allowed = ("NoSuchLifecycleConfiguration", "NotFound", "NotImplemented", "AccessDenied", "MethodNotAllowed")
    try:
        response = store.objects.client.request(
            "get_bucket_lifecycle_configuration", "the lifecycle of the bucket", TIMEOUT, {}, allowed=allowed
        )
    except ServiceRefusal as refusal:
        if refusal.code == "AccessDenied":
            return StoreCheck("the lifecycle rules of the bucket cannot be read with these rights")
        return StoreCheck("the bucket has no lifecycle rules", LIFECYCLE_REMEDY)
    except DerivaMLException as error:
        return StoreCheck(f"the lifecycle rules of the bucket cannot be read: {error}")
    rules: list[dict[str, Any]] = response.get("Rules", [])
    if any(rule.get("Status") == "Enabled" and rule.get("AbortIncompleteMultipartUpload") for rule in rules):
        return StoreCheck("a lifecycle rule aborts incomplete uploads")
    return StoreCheck("no lifecycle rule aborts incomplete uploads", LIFECYCLE_REMEDY)
