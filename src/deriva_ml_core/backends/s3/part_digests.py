"""Digests of a file for an upload in parts: of the whole file, and of each part, in one pass."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backends.file_content import FileChanged, FileContent

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

__all__ = ["MIN_PART_SIZE", "PartDigests", "choose_part_size", "encode_md5"]

MIN_PART_SIZE = 5 * 2**20
"""Bytes of the smallest part, except the last (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""

MAX_PART_SIZE = 5 * 2**30
MAX_PARTS = 10_000
"""Bytes of the largest part, and most parts of an object, from the same page."""

READ_SIZE = 2**20
CHUNK_BYTES = 4 * READ_SIZE
"""Bytes that are read at once: two threads compute their digests, and Python's part of that takes no time."""


@dataclass(frozen=True, slots=True)
class PartDigests:
    """Digests of a file.

    Args:
        content: The file with the digest of all bytes.
        part_size: Bytes of each part, except the last.
        parts: MD5 of each part, 16 bytes each. Empty if the file has only one part.
    """

    content: FileContent
    part_size: int
    parts: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, file: Path, part_size: int) -> PartDigests:
        """Read a file once.

        Args:
            file: The file.
            part_size: Bytes of a part.

        Raises:
            FileNotFoundError: The file does not exist.
            InvalidFileName: The path is not a regular file.
            FileChanged: The file became longer or shorter while it was read.
        """
        status = FileContent.stat(file)
        if status.length <= part_size:
            content = FileContent.read(file)
            if content.length > part_size:
                raise FileChanged
            return cls(content, part_size)
        whole, parts = hashlib.md5(usedforsecurity=False), []
        with file.open("rb", buffering=0) as stream, ExitStack() as stack:
            update = _update_in_parallel(stack)
            left = status.length
            while left:
                part, part_left = hashlib.md5(usedforsecurity=False), min(part_size, left)
                left -= part_left
                while part_left:
                    block = stream.read(min(CHUNK_BYTES, part_left))
                    if not block:
                        raise FileChanged
                    update(part, whole, block)
                    part_left -= len(block)
                parts.append(part.digest())
            if stream.read(1):
                raise FileChanged
        return cls(status.with_md5(whole.hexdigest()), part_size, tuple(parts))

    @property
    def etags(self) -> frozenset[str]:
        """The entity tags that a service without its own encryption keys gives the object."""
        if not self.parts:
            return frozenset((self.content.md5,))
        joined = hashlib.md5(b"".join(self.parts), usedforsecurity=False).hexdigest()
        return frozenset((self.content.md5, f"{joined}-{len(self.parts)}"))

    def part_range(self, number: int) -> tuple[int, int]:
        """Return the offset and the length of a part.

        Args:
            number: Number of the part, from 1.
        """
        start = (number - 1) * self.part_size
        return start, min(self.part_size, self.content.length - start)


def choose_part_size(length: int, chunk_size: int, resume: JsonValue = None) -> int:
    """Return the bytes of a part: those of the interrupted upload or the chosen ones, within the service's limits.

    Args:
        length: Bytes of the file.
        chunk_size: Bytes of a part that the user chose.
        resume: Saved progress of an interrupted upload, whose parts can be used only with their size.
    """
    match resume:
        case {"upload": str(), "part_size": int(part_size)} if MIN_PART_SIZE <= part_size <= MAX_PART_SIZE:
            chunk_size = part_size
    smallest = -(-length // MAX_PARTS)
    return max(chunk_size, MIN_PART_SIZE, -(-smallest // 2**20) * 2**20)


def encode_md5(digest: bytes) -> str:
    """Return a digest in base64, as in the header Content-MD5."""
    return base64.b64encode(digest).decode()


def _update_in_parallel(stack: ExitStack) -> Callable[[Any, Any, bytes], None]:
    """Return a function that updates two digests in two threads, or in one if the system starts no other."""
    pool: ThreadPoolExecutor | None = stack.enter_context(ThreadPoolExecutor(1, "deriva-ml-md5"))

    def update(first: Any, second: Any, block: bytes) -> None:
        nonlocal pool
        future: Future[None] | None = None
        try:
            future = pool.submit(first.update, block) if pool is not None else None
        except RuntimeError:  # a container's limit is reached, or the process is exiting
            pool = None  # the call may be queued there for a thread that starts later
        if future is None:
            first.update(block)
        second.update(block)
        if future is not None:
            future.result()

    return update
