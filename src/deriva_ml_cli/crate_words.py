"""The sentences of a crate: what is a part of it, what lies elsewhere, and what is only named."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

__all__ = ["CrateBuilder", "EntityType", "is_web_url", "guess_media_type", "unwrap_single"]

EntityType = str | list[str]
"""A type of schema.org's, or several."""


@dataclass(frozen=True, slots=True)
class CrateBuilder:
    """Adds to a crate; facts that are None or empty are left out.

    Args:
        crate: A crate of the library `rocrate`.
    """

    crate: Any

    def add_file(
        self, crate_path: str, source: Path | bytes, entity_type: EntityType, properties: Mapping[str, Any]
    ) -> Any:
        """A file that the crate holds, with its length and SHA-256.

        Args:
            crate_path: Where in the crate.
            source: The file, or its bytes.
            entity_type: What it is.
            properties: What is known of it.
        """
        if isinstance(source, Path):
            with source.open("rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        else:
            digest, size = hashlib.sha256(source).hexdigest(), len(source)
        known = {
            "encodingFormat": guess_media_type(crate_path),
            **properties,
            "contentSize": str(size),
            "sha256": digest,
        }
        given = source if isinstance(source, Path) else BytesIO(source)
        return self.crate.add_file(given, crate_path, properties=_build_properties(known, entity_type))

    def add_remote_data(self, url: str, entity_type: EntityType, properties: Mapping[str, Any]) -> Any:
        """A file or a dataset that lies elsewhere."""
        from rocrate.model.data_entity import DataEntity  # type: ignore[import-untyped]

        return self.crate.add(DataEntity(self.crate, url, _build_properties(properties, entity_type)))

    def add_context_entity(self, identifier: str, entity_type: EntityType, properties: Mapping[str, Any]) -> Any:
        """Something that is named, and no file."""
        from rocrate.model.contextentity import ContextEntity  # type: ignore[import-untyped]

        return self.crate.add(ContextEntity(self.crate, identifier, _build_properties(properties, entity_type)))


def guess_media_type(name: str) -> str:
    """What a file's name says of what is in it."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    known = {".jsonl": "application/jsonl", ".md": "text/markdown", ".ipynb": "application/x-ipynb+json"}
    return known.get(ending) or mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"


def unwrap_single(value: Any) -> Any:
    """A value alone where a list has no other."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def is_web_url(url: str) -> bool:
    """Whether a URL can be asked for anywhere."""
    return url.startswith(("http://", "https://"))


def _build_properties(properties: Mapping[str, Any], entity_type: EntityType) -> dict[str, Any]:
    return {
        "@type": entity_type,
        **{name: unwrap_single(value) for name, value in properties.items() if value not in (None, "", [])},
    }
