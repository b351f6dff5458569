"""Names and URLs of objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deriva_ml_core.backends.embedded import FolderStore
from deriva_ml_core.backends.object_names import (
    FOLDER_OBJECT_VERSION,
    ObjectName,
    check_filename,
    parse_object_path,
    parse_object_url,
)
from deriva_ml_core.errors import DerivaMLException, InvalidFileName, UnknownAddress
from deriva_ml_core.models import UploadOptions

MD5 = "900150983cd24fb0d6963f7d28e17f72"
PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@given(PARTS, st.lists(PARTS, min_size=1, max_size=3).map("/".join))
def test_object_name_round_trip(table: str, filename: str) -> None:
    """Any table and file name is encoded in a one-line ASCII URL, and decoded again."""
    url = ObjectName(table, MD5, filename).url(FOLDER_OBJECT_VERSION)
    assert url.isascii()
    assert url.isprintable()
    assert url.count("/") == 3
    assert parse_object_url(url) == ObjectName(table, MD5, filename)


@given(st.text(alphabet="/hatrcImge.%2F:109" + MD5) | st.text())
def test_parse_object_url(text: str) -> None:
    """A text is either an object URL in canonical form, or refused."""
    try:
        name = parse_object_url(text)
    except UnknownAddress:
        return
    assert name.url(FOLDER_OBJECT_VERSION) == text


@pytest.mark.parametrize(
    "url",
    [
        f"/hatrac/Image/../{MD5}.a:1",
        f"/hatrac/Image/{MD5}.../../a:1",
        f"/hatrac/Image/{MD5}/../../../../etc/passwd.a:1",
        f"/hatrac/Image/{MD5[:-1]}g.a:1",
        f"/hatrac/Image/{MD5}.a:2",
        f"/hatrac/Image/{MD5}.a",
        f"https://example.org/hatrac/Image/{MD5}.a:1",
        f"file:///hatrac/Image/{MD5}.a:1",
        f"/hatrac/Image/{MD5}.a%:1",
        f"/hatrac/Image/{MD5}.a:1\n",
        "",
    ],
)
def test_invalid_object_urls(url: str, tmp_path: Path) -> None:
    """A URL that is not the URL of an object is refused by every operation."""
    store = FolderStore(tmp_path)
    with pytest.raises(UnknownAddress):
        store.get(url, tmp_path / "copy", length=1, md5=MD5, options=UploadOptions())
    with pytest.raises(UnknownAddress):
        store.source(url)


@given(st.text(alphabet="a./\0") | st.text())
def test_check_filename(filename: str) -> None:
    """An accepted file name stays within the folder that it is joined to."""
    try:
        check_filename(filename)
    except InvalidFileName as error:
        assert isinstance(error, DerivaMLException)
        return
    parts = Path("/folder/" + filename).parts
    assert parts[:2] == ("/", "folder")
    assert len(parts) > 2
    assert ".." not in parts


@pytest.mark.parametrize("part", ["..", ".", "%2E%2E", "a%2F..%2Fb"])
def test_object_path_that_leads_out(part: str) -> None:
    """A path on a server with a part that leads elsewhere is refused, also if it is quoted."""
    with pytest.raises(UnknownAddress, match="is not the URL of an object"):
        parse_object_path(f"/hatrac/Image/{part}/{MD5}.a:1", "https://example.org")
