"""What a file's bytes are called: git's blob hash, of a notebook as it is without its outputs."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path

from deriva_ml_core.git.command import run_git

__all__ = ["find_blob", "blob_hash", "is_notebook", "content_hash", "strip_notebook", "read_without_outputs"]

# what nbstripout's own command takes away beside outputs, counts and ids
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
    """Whether the name is a Jupyter notebook's."""
    return str(path).endswith(".ipynb")


def content_hash(content: bytes) -> str:
    """Git's hash of a blob with these bytes: 40 hex digits."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def blob_hash(file: Path) -> str:
    """The hash that git gives a file as it is now.

    Args:
        file: A file, in a repository or not.

    Returns:
        What ``git hash-object <file>`` prints in its repository, filters included; outside one the hash of the bytes.
        For a notebook, the hash of what nbstripout leaves of it, so that running it again changes nothing.

    Raises:
        OSError: The file cannot be read.
    """
    if is_notebook(file):
        return content_hash(strip_notebook(file.read_bytes(), file.parent))
    answer = run_git(file.parent, "hash-object", "--", file.name)
    return answer.lines[0] if answer.ok else content_hash(file.read_bytes())


def find_blob(checksum: str, repositories: Iterable[Path]) -> bytes | None:
    """The bytes that have a hash, where a repository has them; None where none has.

    Args:
        checksum: What `blob_hash` gave.
        repositories: Folders in repositories; those that are not there are passed over.
    """
    if not re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", checksum):
        return None
    answers = (run_git(each, "cat-file", "blob", checksum) for each in repositories if each.is_dir())
    return next((answer.stdout for answer in answers if answer.ok), None)


def read_without_outputs(file: Path) -> bytes:
    """The bytes of a file, of a notebook as nbstripout leaves them: those that `blob_hash` is of.

    Raises:
        OSError: The file cannot be read.
    """
    content = file.read_bytes()
    return strip_notebook(content, file.parent) if is_notebook(file) else content


def strip_notebook(notebook: bytes, folder: Path) -> bytes:
    """A notebook as nbstripout's git filter leaves it; bytes that are no notebook come back unchanged.

    Args:
        notebook: The file's bytes.
        folder: Where it lies, whose git settings may name more keys to strip or to keep.
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
    except Exception:  # noqa: BLE001 - nbformat reports what is no notebook in too many ways to name
        return notebook
    return written.getvalue().encode()


def _extra_keys(folder: Path) -> list[str]:
    settings = {"extrakeys": "", "keepmetadatakeys": ""}
    for record in run_git(
        folder, "config", "-z", "--get-regexp", r"^filter\.nbstripout\.(extrakeys|keepmetadatakeys)$"
    ).records:
        name, _, value = record.partition("\n")
        settings[name.rpartition(".")[2]] = value
    kept = settings["keepmetadatakeys"].split()
    return [key for key in (*_EXTRA_KEYS, *settings["extrakeys"].split()) if key not in kept]
