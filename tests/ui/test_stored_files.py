"""The bytes of assets reach the browser as downloads or as raster images, and as nothing that could run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from page_samples import FILES, PNG
from page_server import PageServer

POLICY = "sandbox; default-src 'none'"


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "picture.png", "not-a-picture.png", "large.bin"])
def test_download(server: PageServer, rids: dict[str, str], name: str) -> None:
    """A file is sent as it is, as an attachment of no particular type."""
    reply = server.get(f"/files/{rids[name]}")
    assert (reply.status, reply.body) == (200, FILES[name])
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-length"] == str(len(FILES[name]))


def test_image(server: PageServer, rids: dict[str, str]) -> None:
    """A raster image may be shown."""
    reply = server.get(f"/files/{rids['picture.png']}?image")
    assert (reply.status, reply.body) == (200, PNG)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"] == "inline"
    assert reply.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "not-a-picture.png"])
def test_no_image(server: PageServer, rids: dict[str, str], name: str) -> None:
    """A file that is no raster image is never shown, whatever its name is."""
    reply = server.get(f"/files/{rids[name]}?image")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"].startswith("attachment")


def test_odd_name(server: PageServer, rids: dict[str, str]) -> None:
    """Quotes and line breaks of a name stay inside the header's value."""
    name = next(name for name in rids if name.startswith("odd"))
    reply = server.get(f"/files/{rids[name]}")
    assert reply.body == b"some text"
    assert reply.headers["content-disposition"].startswith("attachment; filename*=UTF-8''odd%20%22na%0Ame%22.txt")


@pytest.mark.parametrize("rid", ["..%2F..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "1-ZZZZ", "catalog.sqlite", "%00"])
def test_no_path(server: PageServer, rid: str) -> None:
    """What is not the RID of an asset gives no file."""
    assert server.get(f"/files/{rid}").status == 404


def test_rid_of_a_run(server: PageServer, rids: dict[str, str]) -> None:
    """The RID of another row gives no file."""
    reply = server.get(f"/files/{rids['the run']}")
    assert reply.status == 404
    assert "not an asset table" in reply.text


def test_damaged_object(server: PageServer, stored: tuple[Path, dict[str, str]]) -> None:
    """A file whose bytes in the store changed is not sent."""
    home, rids = stored
    reply = server.get(f"/files/{rids['large.bin']}")
    damaged = next(path for path in home.rglob("objects/*/*") if path.read_bytes() == FILES["large.bin"])
    damaged.chmod(0o600)
    try:
        damaged.write_bytes(b"x" + FILES["large.bin"][1:])
        reply = server.get(f"/files/{rids['large.bin']}")
    finally:
        damaged.write_bytes(FILES["large.bin"])
    assert reply.status == 404
    assert "large.bin" in reply.text
    assert reply.body.count(b"\x00\x01\x02") == 0


def test_copies_are_removed(server: PageServer, rids: dict[str, str]) -> None:
    """Nothing of a sent file stays in the folder for temporary files."""
    assert server.get(f"/files/{rids['large.bin']}").status == 200
    while any(server.temporary.iterdir()):  # it is removed after its last byte was sent; a leak ends by the time limit
        time.sleep(0.01)
