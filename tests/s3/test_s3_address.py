"""Addresses of S3 stores, part sizes, and URLs of objects."""

from __future__ import annotations

import pytest

from deriva_ml_core.backends.object_names import S3ObjectName, parse_s3_url
from deriva_ml_core.backends.s3 import S3Address
from deriva_ml_core.backends.s3.part_digests import choose_part_size
from deriva_ml_core.errors import InvalidFileName, UnknownAddress

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("s3://bucket", S3Address("bucket"), "s3://bucket"),
        ("s3://bucket/", S3Address("bucket"), "s3://bucket"),
        ("s3://bucket?", S3Address("bucket"), "s3://bucket"),
        ("s3://b.u-c/a/b/", S3Address("b.u-c", "a/b"), "s3://b.u-c/a/b"),
        (
            "s3://bucket/a?region=eu-west-1&endpoint=HTTPS://S3.Example.org:9000/",
            S3Address("bucket", "a", "https://s3.example.org:9000", "eu-west-1"),
            "s3://bucket/a?endpoint=https://s3.example.org:9000&region=eu-west-1",
        ),
        (
            "s3://bucket?endpoint=http%3A%2F%2F127.0.0.1%3A80%2Fs3",
            S3Address("bucket", "", "http://127.0.0.1:80/s3"),
            "s3://bucket?endpoint=http://127.0.0.1:80/s3",
        ),
        (
            "s3://bucket?endpoint=http://[::1]:80",
            S3Address("bucket", "", "http://[::1]:80"),
            "s3://bucket?endpoint=http://[::1]:80",
        ),
    ],
)
def test_address(text: str, address: S3Address, written: str) -> None:
    """An address is read, and written in one form, which is read as the same."""
    assert S3Address.parse(text) == address
    assert str(address) == written
    assert S3Address.parse(written) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3:",
        "s3://",
        "s3://b",
        "s3://bucket:80",
        "s3://bucket?endpoint",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=https://host?x=1",
        "s3://bucket?endpoint=http://localhost.example.org",
        "s3://bucket?endpoint=http://127.0.0.1@example.org",
        "s3://bucket?endpoint=https://a&endpoint=https://b",
        "s3://bucket?region=eu west",
        "s3://bucket/a//b",
        "s3://bucket/a b",
        "s3://bucket/a%2F..",
        "s3://bucket/" + "a" * 201,
        "s3://bucket#x",
        "s3://bucket\n/x",
        "S3://bucket",
        "https://bucket",
    ],
)
def test_malformed_address(text: str) -> None:
    """A text of another form is refused."""
    with pytest.raises(UnknownAddress, match="The address of the store cannot be used"):
        S3Address.parse(text)


@pytest.mark.parametrize(
    ("length", "chunk_size", "resume", "expected"),
    [
        (10, 25 * MIB, None, 25 * MIB),
        (10, 4096, None, 5 * MIB),
        (10_000 * 25 * MIB, 25 * MIB, None, 25 * MIB),
        (10_000 * 25 * MIB + 1, 25 * MIB, None, 26 * MIB),
        (10 * MIB, 25 * MIB, {"upload": "x", "part_size": 6 * MIB}, 6 * MIB),
        (10 * MIB, 25 * MIB, {"upload": "x", "part_size": 1}, 25 * MIB),
        (10 * MIB, 25 * MIB, {"upload": "x", "part_size": 2**60}, 25 * MIB),
        (10 * MIB, 25 * MIB, {"part_size": 6 * MIB}, 25 * MIB),
    ],
)
def test_part_size(length: int, chunk_size: int, resume: object, expected: int) -> None:
    """A part has the size of the interrupted upload or the chosen one, within the limits of 5 MiB and 10,000 parts."""
    assert choose_part_size(length, chunk_size, resume) == expected


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("a b.png", "/hatrac/Image/0123456789abcdef0123456789abcdef.a%20b.png"),
        ("a/b.png", "/hatrac/Image/0123456789abcdef0123456789abcdef.a%2Fb.png"),
        ("\udcff.png", "/hatrac/Image/0123456789abcdef0123456789abcdef.%FF.png"),
        ("ö.png", "/hatrac/Image/0123456789abcdef0123456789abcdef.%C3%B6.png"),
    ],
)
def test_names(filename: str, path: str) -> None:
    """An object has the same name as in other stores, also if the file name is not Unicode."""
    name = S3ObjectName("Image", "0123456789abcdef0123456789abcdef", filename)
    assert name.path == path
    assert parse_s3_url(name.url("1")) == path


def test_long_names() -> None:
    """A long name is shortened to what a service's disk accepts, and stays distinct."""
    names = [S3ObjectName("Image", "0" * 32, "é" * 200 + last + ".h5") for last in "ab"]
    assert [len(name.path.rpartition("/")[2]) <= 213 for name in names] == [True, True]
    assert names[0].path != names[1].path
    assert all(name.path.endswith(".h5") for name in names)
    with pytest.raises(InvalidFileName):
        S3ObjectName("Image", "0" * 32, "../a")
