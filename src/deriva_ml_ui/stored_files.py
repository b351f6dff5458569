"""The bytes of assets, on a route of their own: files of users may hold scripts, and none of them runs here."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._text import sanitize_line
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.models import Asset
from deriva_ml_ui.answers import Answers, TooManyQuestions

__all__ = ["FILES_PATH", "Preview", "file_address", "file_routes", "load_preview"]

FILES_PATH = "/files"
CHUNK_BYTES = 2**18
MAX_IMAGE_BYTES = 20 * 2**20
"""Largest image, in bytes, that a page shows; larger ones can be downloaded."""

MAX_TEXT_BYTES = 2**16
"""Bytes of a text that a page shows."""

MAX_TEXT_FILE_BYTES = 64 * 2**20
"""Largest file, in bytes, that is fetched for the beginning of its text."""

FILE_POLICY = "sandbox; default-src 'none'"

_SIGNATURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""The first bytes of raster images. The name of a file and its recorded type are not trusted."""


def file_address(rid: str, *, as_image: bool = False) -> str:
    """Return the address of an asset's bytes.

    Args:
        rid: The asset's RID.
        as_image: Whether the browser shows it, if it is a raster image; else it is downloaded.
    """
    return f"{FILES_PATH}/{quote(rid, safe='')}" + ("?image" if as_image else "")


def file_routes(answers: Answers) -> list[Route]:
    """Return the route of the files."""

    async def send_file(request: Request) -> Response:
        rid, as_image = request.path_params["rid"], "image" in request.query_params
        try:
            asset = await answers.ask(("asset", rid), lambda ml: ml.lookup_asset(rid), max_age=60)
            if as_image and asset.length > MAX_IMAGE_BYTES:
                return PlainTextResponse("The image is too large to be shown. Download it.\n", 413)
            fetched = ExitStack()
            path = await answers.fetch(lambda ml: _fetch(ml, asset, fetched))
        except (DerivaMLException, TooManyQuestions) as error:
            return PlainTextResponse(f"{sanitize_line(error)}\n", 404 if isinstance(error, DerivaMLException) else 503)
        except OSError as error:
            return PlainTextResponse(f"The file cannot be fetched: {sanitize_line(error)}\n", 503)
        kind = (await run_in_threadpool(find_image_type, path)) if as_image else None
        return _FileResponse(path, asset, kind, fetched)

    return [Route(FILES_PATH + "/{rid}", send_file, methods=["GET"])]


def _fetch(ml: DerivaML, asset: Asset, fetched: ExitStack) -> Path:
    """Copy an asset to a folder that `fetched` removes, and verify it: nothing else leaves the store."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(ml.connection.folder))
        path = download_asset(ml.connection, asset, folder)
        fetched.push(stack.pop_all())
    return path


def find_image_type(path: Path) -> str | None:
    """Return the media type of a raster image by its first bytes; None for other files."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), None)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a page shows of a file.

    Args:
        kind: ``image``, ``text``, ``json`` or ``none``.
        text: The text; empty for other kinds.
        is_cut: Whether the file is longer than the text.
    """

    kind: str
    text: str = ""
    is_cut: bool = False


def load_preview(ml: DerivaML, asset: Asset) -> Preview:
    """Return what a page shows of a file: an image, or the beginning of a text.

    Args:
        ml: The client.
        asset: The file.

    Raises:
        DerivaMLException: The file cannot be fetched.
    """
    if asset.length > MAX_TEXT_FILE_BYTES:
        return Preview("none")
    with ExitStack() as stack:
        path = _fetch(ml, asset, stack)
        if find_image_type(path):
            return Preview("image" if asset.length <= MAX_IMAGE_BYTES else "none")
        with path.open("rb") as file:
            start = file.read(MAX_TEXT_BYTES)
    is_cut = asset.length > len(start)
    text = decode_text(start, is_cut=is_cut)
    if text is None:
        return Preview("none")
    if not is_cut and text.lstrip().startswith(("{", "[")):
        try:
            return Preview("json", json.dumps(json.loads(text), indent=2, ensure_ascii=False))
        except (ValueError, RecursionError):
            pass
    return Preview("text", text, is_cut)


def decode_text(start: bytes, *, is_cut: bool) -> str | None:
    """Return the beginning of a file as text; None if it is none.

    Args:
        start: The first bytes of the file.
        is_cut: Whether more bytes follow, so that the last character may be incomplete.
    """
    if b"\0" in start:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(start, final=not is_cut)
    except UnicodeDecodeError:
        return None


class _FileResponse(StreamingResponse):
    """A response that streams a file, and removes it afterwards, also if the reader went away."""

    def __init__(self, path: Path, asset: Asset, image_type: str | None, fetched: ExitStack) -> None:
        self._fetched = fetched
        name = PurePosixPath(asset.filename).name or asset.rid
        disposition = "inline" if image_type else f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        headers = {
            "Content-Disposition": disposition,
            "Content-Length": str(path.stat().st_size),
            "Content-Security-Policy": FILE_POLICY,
            "Cache-Control": "private, max-age=3600" if image_type else "no-store",
        }
        super().__init__(_iter_chunks(path), 200, headers, image_type or "application/octet-stream")

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        try:
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]
        finally:
            await run_in_threadpool(self._fetched.close)


async def _iter_chunks(path: Path) -> AsyncIterator[bytes]:
    with await run_in_threadpool(path.open, "rb") as file:
        while chunk := await run_in_threadpool(file.read, CHUNK_BYTES):
            yield chunk
