"""Object store on S3, or on a service with the same protocol."""

from __future__ import annotations

from deriva_ml_core.backends.s3.s3_address import S3Address
from deriva_ml_core.backends.s3.store import S3Store

__all__ = ["S3Address", "S3Store"]
