"""Object stores that a catalog names by their address, and which of them this user has confirmed.

A catalog that comes from somebody else may name any store. A run would send its files there, and a reader would connect
to it, so a store is used only after the user has named it once.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from deriva_ml_core._files.json_lines import append_line, complete_lines, parse_object
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core._lazy import require_extra
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.errors import AccessRefused, StoreConflict, UnconfirmedStore, UnknownAddress
from deriva_ml_core.paths import embedded_catalog_folder, home_folder
from deriva_ml_core.redaction import redact_address

if TYPE_CHECKING:
    from deriva_ml_core.backends.s3 import S3Store

__all__ = ["STORE_VARIABLE", "check_same_store", "confirm_store", "open_named_store", "prepare_store"]

STORE_VARIABLE = "DERIVA_ML_STORE"
"""Environment variable with the address of a store that the user confirms."""

CONFIRMED_STORES_FILENAME = "confirmed-stores.jsonl"


def open_named_store(address: str | None, catalog: str, named: str | None) -> ObjectStore:
    """Open the store that a catalog names.

    Args:
        address: Address that the catalog keeps. None if its objects are in its folder.
        catalog: Address of the catalog, for messages.
        named: Address that the user has passed. None if there is none.

    Raises:
        StoreConflict: The user named another store.
        UnconfirmedStore: The user has confirmed neither the endpoint nor the bucket.
    """
    if named is not None:
        check_same_store(address, prepare_address(named), catalog)
    assert address is not None
    if named is not None:
        confirm_store(address)
    elif _place(address) not in _confirmed_places():
        if not _is_named_by_environment(address):
            raise _unconfirmed(address, catalog)
        confirm_store(address)
    folder = _folder(address)
    return _load_s3_store(address) if folder is None else FolderStore(folder)


def prepare_store(address: str) -> str:
    """Return the complete address of a store, after a check that the user may write to it.

    Args:
        address: The address, without the endpoint or region if they are those of the user's configuration.
    """
    complete, folder = prepare_address(address), _folder(address)
    if folder is None:
        _load_s3_store(complete).check_writable()
    else:
        _check_writable(folder)
    return complete


def _check_writable(folder: Path) -> None:
    try:
        create_folder(folder, root=folder)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise AccessRefused(
            f"Files cannot be written to the store {folder} ({error.strerror}). Use a folder that every user of the "
            "catalog may write to."
        ) from error


def prepare_address(address: str) -> str:
    """Return an address with the endpoint and region that the user's configuration has for it."""
    folder = _folder(address)
    return str(_load_s3_store(address).complete_address()) if folder is None else f"file:{folder}"


def check_same_store(address: str | None, named: str, catalog: str) -> None:
    """Raise `StoreConflict` unless a catalog has the store that was named.

    Args:
        address: Address that the catalog keeps. None if its objects are in its folder.
        named: The complete address that was named.
        catalog: Address of the catalog, for messages.
    """
    if address is None:
        raise StoreConflict(
            f"The catalog {catalog} has its files in its own folder, not in {named}. Leave the store out, or create "
            "another catalog with that store."
        )
    if _location(address) != _location(named):
        raise StoreConflict(
            f"The catalog {catalog} has its files in {address}, not in {named}. Name that store, or create another "
            "catalog."
        )


def confirm_store(address: str) -> None:
    """Remember that this user has confirmed a store. If the home folder cannot be written, it is asked for again."""
    endpoint, bucket = place = _place(address)
    if place not in _confirmed_places():
        line = json.dumps({"endpoint": endpoint, "bucket": bucket})
        with suppress(OSError):
            _file().parent.mkdir(parents=True, exist_ok=True)
            append_line(_file(), line, mode=0o600)


def _load_s3_store(address: str) -> S3Store:
    if not address.startswith("s3://"):
        raise UnknownAddress(
            f"The store {redact_address(address)!r} is not known: use s3://<bucket>/<prefix>, or file:<folder>."
        )
    with require_extra("s3", "A store on S3"):
        from deriva_ml_core.backends.s3 import S3Store

        return S3Store(address)


def _folder(address: str) -> Path | None:
    """Return the folder of a store in a folder, or None for another store."""
    return embedded_catalog_folder(address) if address.startswith("file:") else None


def _place(address: str) -> tuple[str, str]:
    """Return what a user confirms: endpoint and bucket, or a folder."""
    folder = _folder(address)
    return _load_s3_store(address).address.place if folder is None else ("file:", str(folder))


def _location(address: str) -> tuple[str, ...]:
    return _place(address) if _folder(address) else (*_place(address), _load_s3_store(address).address.prefix)


def _is_named_by_environment(address: str) -> bool:
    named = os.environ.get(STORE_VARIABLE)
    return bool(named) and _location(prepare_address(str(named))) == _location(address)


def _file() -> Path:
    return home_folder() / CONFIRMED_STORES_FILENAME


def _confirmed_places() -> set[tuple[str, str]]:
    return set(_read_places())


def _read_places() -> Iterator[tuple[str, str]]:
    try:
        content = _file().read_bytes()
    except OSError:
        return
    for line in complete_lines(content):
        place = parse_object(line)
        if place is not None:
            yield str(place.get("endpoint", "")), str(place.get("bucket", ""))


def _unconfirmed(address: str, catalog: str) -> UnconfirmedStore:
    return UnconfirmedStore(
        f"The catalog {catalog} has its files in {address}, which you have not used before. If you trust that place, "
        f"confirm it once: `{shlex.join(['deriva-ml', 'doctor', '--host', catalog, '--store', address])}`, or "
        f"DerivaML({catalog!r}, store={address!r}), or the environment variable {STORE_VARIABLE}.",
        address,
    )
