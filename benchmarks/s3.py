"""Requests and time of uploads to an S3 store, on SeaweedFS on loopback."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, unique_bytes
from benchmarks.scale import Scale
from benchmarks.timing import compare, time_call
from deriva_ml import DerivaML, Execution

if TYPE_CHECKING:
    from engines.s3 import S3Service

FILES = 100
EXTRA_REQUESTS = 10
"""Requests of an upload besides one for each file: the check of the store, the records of the run, and some reserve."""

BIG_FILES = 4
"""The big file here is so many times as large as elsewhere: 1 GiB in full."""

MAX_ROUNDS = 3


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Count the requests of small files, and time a big one."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from engines.s3 import ACCESS_KEY, SECRET_KEY, seaweedfs

    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "DERIVA_ML_HOME": str(folder / "home"),
    }
    with patch.dict(os.environ, environment), seaweedfs(folder / "seaweedfs") as service:
        yield _count_requests(service, folder)
        big = _BigFile(service, folder, BIG_FILES * scale.big_bytes)
        comparison = compare(big.upload, big.send_bare, min(scale.heavy_rounds, MAX_ROUNDS))
        what = f"upload a file of {BIG_FILES * scale.big_bytes / 2**20:,.0f} MiB"
        yield comparison_figure(what, "one MD5 pass + botocore's put_object", comparison, target=1.3)


def _count_requests(service: S3Service, folder: Path) -> Figure:
    from engines.s3_proxy import running_proxy

    with (
        running_proxy(service.port) as proxy,
        DerivaML.create(f"file:{folder / 'small'}", store=service.address("small", proxy.port)) as ml,
    ):
        exe = _run(ml)
        for number in range(FILES):
            exe.asset_file_path("Image", f"{number}.png").write_bytes(unique_bytes(1024))
        proxy.requests.clear()
        exe.upload_execution_outputs()
        count = len(proxy.requests)
    return Figure(f"upload {FILES} files", count, "requests", target=FILES + EXTRA_REQUESTS)


def _run(ml: DerivaML) -> Execution:
    with ml.create_execution(execution_configuration()) as exe:
        return exe


class _BigFile:
    """Uploads new bytes, with an execution and without this software."""

    def __init__(self, service: S3Service, folder: Path, length: int) -> None:
        self._ml = DerivaML.create(f"file:{folder / 'big'}", store=service.address("big"))
        self._file = folder / "big.bin"
        self._length = length
        self._client: Any = service.client()

    def upload(self) -> float:
        """Return the seconds of an upload."""
        self._file.write_bytes(unique_bytes(self._length))
        exe = _run(self._ml)
        exe.upload_execution_outputs()  # the records of the run
        exe.asset_file_path("Model", self._file)
        return time_call(exe.upload_execution_outputs)

    def send_bare(self) -> float:
        """Return the seconds of one pass for the digest and of one request with all bytes."""
        self._file.write_bytes(unique_bytes(self._length))

        def send() -> None:
            with self._file.open("rb", buffering=0) as opened:
                name = hashlib.file_digest(opened, "md5").hexdigest()
                opened.seek(0)
                self._client.put_object(Bucket="tests", Key=f"bare/{name}", Body=opened)

        return time_call(send)
