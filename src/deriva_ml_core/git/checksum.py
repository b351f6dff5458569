"""Checksums of code: git's blob hash, for a notebook that of the notebook without outputs."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path

from deriva_ml_core.git.command import run_git

__all__ = ["find_blob", "blob_hash", "is_notebook", "content_hash", "strip_notebook", "read_without_outputs"]

# what the nbstripout command removes besides outputs, counts and ids
_EXTRA_KEYS = (
    "metadata.signature",
    "metadata.widgets",
    "cell.metadata.collapsed",
    "cell.metadata.ExecuteTime",
    "cell.metadata.execution",
    "cell.metadata.heading_collapsed",
    "cell.metadata.hidden",
    "cell.metadata.scrolled",
)


def is_notebook(path: Path | str) -> bool:
    """Whether a file name is that of a Jupyter notebook."""
    return str(path).endswith(".ipynb")


def content_hash(content: bytes) -> str:
    """Return git's hash of a blob with these bytes: 40 hex digits."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def blob_hash(file: Path) -> str:
    """Return git's hash of a file as it is now.

    Args:
        file: A file, inside or outside a repository.

    Returns:
        The output of ``git hash-object <file>`` in its repository, including filters; outside one, the hash of the
        bytes. For a notebook, the hash of its content after nbstripout, which stays the same when it runs again.

    Raises:
        OSError: The file cannot be read.
    """
    if is_notebook(file):
        return content_hash(strip_notebook(file.read_bytes(), file.parent))
    result = run_git(file.parent, "hash-object", "--", file.name)
    return result.lines[0] if result.ok else content_hash(file.read_bytes())


def find_blob(checksum: str, repositories: Iterable[Path]) -> bytes | None:
    """Return the bytes with a hash from the first repository that has them, or None.

    Args:
        checksum: A hash from `blob_hash`.
        repositories: Folders in repositories; missing folders are skipped.
    """
    if not re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", checksum):
        return None
    results = (run_git(each, "cat-file", "blob", checksum) for each in repositories if each.is_dir())
    return next((result.stdout for result in results if result.ok), None)


def read_without_outputs(file: Path) -> bytes:
    """Return the bytes that `blob_hash` is computed from: a notebook without outputs, any other file as it is.

    Raises:
        OSError: The file cannot be read.
    """
    content = file.read_bytes()
    return strip_notebook(content, file.parent) if is_notebook(file) else content


def strip_notebook(notebook: bytes, folder: Path) -> bytes:
    """Return a notebook as nbstripout's git filter writes it; bytes that are not a notebook are returned unchanged.

    Args:
        notebook: The file's bytes.
        folder: The notebook's folder; its git settings may name more keys to strip or to keep.
    """
    import warnings

    import nbformat
    from nbstripout import strip_output

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = nbformat.reads(notebook.decode(), as_version=nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]
            clean = strip_output(content, None, False, False, _extra_keys(folder))
            written = io.StringIO()
            nbformat.write(clean, written)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001 - nbformat raises many kinds of errors for what is not a notebook
        return notebook
    return written.getvalue().encode()


def _extra_keys(folder: Path) -> list[str]:
    settings = {"extrakeys": "", "keepmetadatakeys": ""}
    for record in run_git(
        folder, "config", "-z", "--get-regexp", r"^filter\.nbstripout\.(extrakeys|keepmetadatakeys)$"
    ).records:
        name, _, value = record.partition("\n")
        settings[name.rpartition(".")[2]] = value
    keep = settings["keepmetadatakeys"].split()
    return [key for key in (*_EXTRA_KEYS, *settings["extrakeys"].split()) if key not in keep]
