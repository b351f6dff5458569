"""Two S3 services: SeaweedFS, which honours conditions, and rclone, which ignores them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.process import MAX_STARTS, EngineFailed, free_ports, running

__all__ = ["ACCESS_KEY", "SECRET_KEY", "S3Service", "rclone", "seaweedfs"]

ACCESS_KEY = "AKTEST12345678901234"
SECRET_KEY = "secret-of-tests-1234567890123456789012345"
BUCKET = "tests"


@dataclass(frozen=True)
class S3Service:
    """A running service with a bucket.

    Args:
        name: Name of the engine.
        port: Its port on loopback.
        folder: The folder with its files.
    """

    name: str
    port: int
    folder: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, prefix: str, port: int | None = None) -> str:
        """Return the address of a store.

        Args:
            prefix: Prefix of its objects.
            port: Port of a proxy in front of the service.
        """
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}&region=us-east-1"

    def client(self) -> Any:
        """Return a client of botocore, which knows nothing of this project."""
        import botocore.session
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=config,
        )


def _program(name: str) -> str:
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    program = shutil.which(name, path=os.pathsep.join(folders))
    assert program is not None, f"{name} is not installed; pip install '.[test]' installs it"
    return program


def _environment(folder: Path) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "HOME": str(folder),
        "PATH": os.environ.get("PATH", ""),
        "RCLONE_CONFIG": str(folder / "rclone.conf"),
    }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Service]:
    """Run SeaweedFS with one bucket.

    Args:
        folder: Empty folder for its files.
    """
    names = "s3 s3.port.grpc s3.port.iceberg s3.port.lance master master.port.grpc volume volume.port.grpc filer"
    names += " filer.port.grpc admin admin.port.grpc"
    for attempt in range(MAX_STARTS):
        data = folder / f"seaweedfs-{attempt}"
        data.mkdir(parents=True)
        options = [name if "." in name else f"{name}.port" for name in names.split()]
        ports = dict(zip(options, free_ports(len(options)), strict=True))
        command = [_program("weed"), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"]
        command += [f"-{option}={port}" for option, port in ports.items()]
        service = S3Service("seaweedfs", ports["s3.port"], data)
        try:
            with running(command, service.port, folder / "seaweedfs.log", _environment(data)):
                service.client().create_bucket(Bucket=BUCKET)
                yield service
                return
        except EngineFailed:
            if attempt == MAX_STARTS - 1:
                raise


@contextmanager
def rclone(folder: Path) -> Iterator[S3Service]:
    """Run ``rclone serve s3`` with one bucket.

    Args:
        folder: Empty folder for its files.
    """
    for attempt in range(MAX_STARTS):
        data = folder / f"rclone-{attempt}"
        (data / BUCKET).mkdir(parents=True)
        (port,) = free_ports(1)
        command = [_program("rclone"), "serve", "s3", str(data), "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        try:
            with running(command, port, folder / "rclone.log", _environment(data)):
                yield S3Service("rclone", port, data)
                return
        except EngineFailed:
            if attempt == MAX_STARTS - 1:
                raise
