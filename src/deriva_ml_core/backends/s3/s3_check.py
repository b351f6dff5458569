"""Checks of an S3 store: whether it can be written and read, and what its bucket should be configured to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from deriva_ml_core.backend import StoreCheck
from deriva_ml_core.backends.s3.s3_client import ServiceRefusal
from deriva_ml_core.backends.s3.s3_objects import PROBE_CONTENT, PROBE_NAME, S3Objects
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException

__all__ = ["check_s3_store"]

TIMEOUT = (6.0, 60.0)
ABANDONED_AFTER = timedelta(days=7)
LIFECYCLE_REMEDY = "let a lifecycle rule of the bucket abort incomplete multipart uploads after 7 days"


def check_s3_store(
    objects: S3Objects, find_incomplete_uploads: Callable[[timedelta], Iterable[object]]
) -> list[StoreCheck]:
    """Check a store with a few requests. Its object for tests is created if it does not exist.

    Args:
        objects: The objects of the store.
        find_incomplete_uploads: Function that yields the incomplete uploads from an age.
    """
    try:
        is_conditional = objects.honours_conditions(TIMEOUT)
        _read_probe(objects)
    except DerivaMLException as error:
        return [StoreCheck(str(error), "see the message", is_error=True)]
    checks = [StoreCheck(f"{objects.client.address} can be written and read")]
    if is_conditional:
        checks.append(StoreCheck("the service refuses to overwrite an object"))
    else:
        message = "the service overwrites objects although it is told not to; each file is looked up before and after"
        checks.append(StoreCheck(message, "turn on the bucket's versioning, or use a service with conditional writes"))
    return [*checks, _check_incomplete_uploads(find_incomplete_uploads), _check_lifecycle(objects)]


def _read_probe(objects: S3Objects) -> None:
    digest = hashlib.md5(PROBE_CONTENT, usedforsecurity=False).hexdigest()
    key = objects.client.address.key(PROBE_NAME)
    if objects.compute_md5(key, len(PROBE_CONTENT), TIMEOUT) != (digest, len(PROBE_CONTENT)):
        raise ChecksumMismatch(f"The object {key} has other bytes than those that were written. Delete it.")


def _check_incomplete_uploads(find_incomplete_uploads: Callable[[timedelta], Iterable[object]]) -> StoreCheck:
    try:
        count = sum(1 for _ in find_incomplete_uploads(ABANDONED_AFTER))
    except DerivaMLException as error:
        return StoreCheck(f"incomplete uploads cannot be listed: {error}", "allow s3:ListBucketMultipartUploads")
    if count:
        return StoreCheck(f"{count} uploads were started over 7 days ago and never completed", LIFECYCLE_REMEDY)
    return StoreCheck("no upload was abandoned")


def _check_lifecycle(objects: S3Objects) -> StoreCheck:
    allowed = ("NoSuchLifecycleConfiguration", "NotFound", "NotImplemented", "AccessDenied", "MethodNotAllowed")
    try:
        response = objects.client.request(
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
