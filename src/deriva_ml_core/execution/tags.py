"""Tags of executions, and baselines: tags that one execution has at a time."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from deriva_ml_core.backend import AllOf, Comparison, InSubquery
from deriva_ml_core.connection import Connection
from deriva_ml_core.default_schema import tags_table
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import InvalidTag, UnknownBaseline
from deriva_ml_core.execution.conditions import missing_table_error
from deriva_ml_core.schema import CatalogModel

__all__ = [
    "DEFAULT_BASELINE",
    "MAX_TAG_LENGTH",
    "add_tags",
    "as_tags",
    "baseline_tag",
    "check_tag",
    "check_tags",
    "find_similar_tags",
    "has_tags",
    "is_baseline_tag",
    "list_baselines",
    "list_tags",
    "lookup_baseline",
    "remove_tags",
    "set_baseline",
]

MAX_TAG_LENGTH = 100
"""Maximum number of characters of a tag."""

MAX_TAG_ROWS = 2000
"""Maximum number of rows read to find similar tags."""

DEFAULT_BASELINE = "baseline"
"""Name of the baseline that commands and functions mean without a name. Its tag is the name itself."""

BASELINE_PREFIX = "baseline:"
"""Beginning of the tags of all other baselines."""

# control characters, characters that change the direction of text, line separators, and lone surrogates
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def check_tag(tag: object) -> str:
    """Return a tag as it is stored: without white space around it, with composed characters, and redacted.

    Raises:
        InvalidTag: It is no text, is empty or too long, or has a comma or control characters.
    """
    if not isinstance(tag, str):
        raise InvalidTag(f"A tag must be a text, not {type(tag).__name__}. Pass each tag as an argument of its own.")
    text = unicodedata.normalize("NFC", tag.strip())
    if not text:
        raise InvalidTag(f"The tag {tag!r} is empty. Use at least one character.")
    if _UNPRINTABLE.search(text):
        raise InvalidTag(f"The tag {text!r} has a control character. Use one line of printable characters.")
    if len(text) > MAX_TAG_LENGTH:
        raise InvalidTag(
            f"The tag {f'{text[:20]}...'!r} has {len(text)} characters, and a tag has at most {MAX_TAG_LENGTH}. Use "
            "the description for a longer text."
        )
    if "," in text:
        raise InvalidTag(f"The tag {text!r} has a comma, which separates tags in lists. Use two tags, or no comma.")
    return _redact(text)


def _redact(text: str) -> str:
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    return redact_text(text)


def check_tags(tags: Iterable[object]) -> tuple[str, ...]:
    """Return tags as they are stored, each once.

    Raises:
        InvalidTag: One of them is invalid, or is the tag of a baseline.
    """
    checked = tuple(dict.fromkeys(map(check_tag, tags)))
    for tag in checked:
        if is_baseline_tag(tag):
            raise InvalidTag(
                f"The tag {tag!r} is that of a baseline, which one run has at a time. Set it with ml.set_baseline(rid) "
                "or the command `deriva-ml baseline RID`."
            )
    return checked


def as_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Return the tags of a filter: a single text is one tag, and a tag is compared in the form that is stored."""
    return tuple(unicodedata.normalize("NFC", tag.strip()) for tag in ([tags] if isinstance(tags, str) else tags))


def is_baseline_tag(tag: str) -> bool:
    """Whether a tag is that of a baseline."""
    return tag == DEFAULT_BASELINE or tag.startswith(BASELINE_PREFIX)


def baseline_tag(name: str) -> str:
    """Return the tag of the baseline with a name.

    Raises:
        InvalidTag: The name makes no valid tag.
    """
    checked = check_tag(name)
    return checked if checked == DEFAULT_BASELINE else check_tag(f"{BASELINE_PREFIX}{checked}")


def has_tags(model: CatalogModel) -> bool:
    """Whether a catalog has the table for tags; an earlier version or another client may have created it."""
    table = model.tables.get(MLTable.execution_tag)
    return table is not None and table.column_names >= tags_table().column_names


def list_tags(connection: Connection, rids: Iterable[RID]) -> dict[RID, tuple[str, ...]]:
    """Return the sorted tags of executions by RID; empty if the catalog has no table for tags."""
    executions = list(rids)
    tags: dict[RID, list[str]] = {}
    if executions and has_tags(connection.catalog.model):
        for row in connection.catalog.select(MLTable.execution_tag, {"Execution": executions}):
            tags.setdefault(row["Execution"], []).append(row["Tag"])
    return {rid: tuple(sorted(of_rid, key=lambda tag: (tag.casefold(), tag))) for rid, of_rid in tags.items()}


def add_tags(connection: Connection, rid: RID, tags: Iterable[object]) -> None:
    """Add tags to an execution; see ``RecordedExecution.add_tags``."""
    checked = check_tags(tags)
    _require_table(connection)
    rows = [{"Execution": rid, "Tag": tag} for tag in checked]
    if rows:
        connection.catalog.insert(MLTable.execution_tag, rows, skip_existing=True)


def remove_tags(connection: Connection, rid: RID, tags: Sequence[str]) -> None:
    """Remove tags from an execution; see ``RecordedExecution.remove_tags``."""
    _require_table(connection)
    # another program may have written a tag in a form that `check_tag` refuses or changes
    forms = {form for tag in tags if isinstance(tag, str) for form in (tag, unicodedata.normalize("NFC", tag.strip()))}
    if forms:
        connection.catalog.delete(MLTable.execution_tag, {"Execution": rid, "Tag": sorted(forms)})


def _require_table(connection: Connection) -> None:
    if not (has_tags(connection.catalog.model) or has_tags(connection.catalog.refresh())):
        raise missing_table_error(connection, MLTable.execution_tag, "the tags of executions")


def find_similar_tags(connection: Connection, tags: Iterable[str]) -> dict[str, list[str]]:
    """Return existing tags that are similar to those that no execution has, by the latter."""
    catalog = connection.catalog
    if not has_tags(catalog.model):
        return {}
    unknown = [tag for tag in as_tags(tuple(tags)) if not catalog.select(MLTable.execution_tag, {"Tag": tag}, limit=1)]
    if not unknown:
        return {}
    rows = catalog.select(MLTable.execution_tag, order=("RCT", "RID"), descending=True, limit=MAX_TAG_ROWS)
    by_folded_name: dict[str, str] = {row["Tag"].casefold(): row["Tag"] for row in rows}
    return {
        tag: [by_folded_name[name] for name in difflib.get_close_matches(tag.casefold(), by_folded_name, n=3)]
        for tag in unknown
    }


def set_baseline(connection: Connection, rid: RID, name: str) -> None:
    """Make an execution the baseline of a name; see ``DerivaML.set_baseline``."""
    tag = baseline_tag(name)
    _require_table(connection)
    connection.require_row(MLTable.execution, rid)
    catalog = connection.catalog
    former = catalog.select(MLTable.execution_tag, {"Tag": tag})
    # the new row comes first: if this is interrupted, or another process does the same, the newest row counts
    if all(row["Execution"] != rid for row in former):
        catalog.insert(MLTable.execution_tag, [{"Execution": rid, "Tag": tag}], skip_existing=True)
    if outdated := [row["RID"] for row in former if row["Execution"] != rid]:
        catalog.delete(MLTable.execution_tag, {"RID": outdated})


def lookup_baseline(connection: Connection, name: str) -> RID:
    """Return the RID of the execution that is the baseline of a name.

    Raises:
        InvalidTag: The name makes no valid tag.
        UnknownBaseline: No execution is the baseline of that name.
    """
    tag = baseline_tag(name)
    rows = []
    if has_tags(connection.catalog.model):
        order = ("RCT", "RID")
        rows = connection.catalog.select(MLTable.execution_tag, {"Tag": tag}, order=order, descending=True, limit=1)
    if not rows:
        known = ", ".join(map(repr, list_baselines(connection)))
        others = f"The baselines are {known}. " if known else ""
        raise UnknownBaseline(
            f"No execution of {connection.catalog.name} is the baseline {name!r}. {others}Set it with "
            f"ml.set_baseline(rid, {name!r}) or the command `deriva-ml baseline RID`."
        )
    return str(rows[0]["Execution"])


def list_baselines(connection: Connection) -> dict[str, RID]:
    """Return the executions that are baselines, by the name of the baseline."""
    if not has_tags(connection.catalog.model):
        return {}
    # all tags that begin with "baseline" are between these two, whatever the order of punctuation is
    bounds = (Comparison(">=", DEFAULT_BASELINE), Comparison("<", "baselinf"))
    subqueries = AllOf(tuple(InSubquery(MLTable.execution_tag, {"Tag": bound}) for bound in bounds))
    rows = connection.catalog.select(MLTable.execution_tag, {"RID": subqueries}, order=("RCT", "RID"))
    found = {row["Tag"]: row["Execution"] for row in rows if is_baseline_tag(row["Tag"])}
    return {tag.removeprefix(BASELINE_PREFIX): rid for tag, rid in sorted(found.items())}
