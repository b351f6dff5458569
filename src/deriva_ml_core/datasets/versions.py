"""The versions of datasets: numbers in order, each with the snapshot that keeps its members as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import dropwhile
from typing import TYPE_CHECKING

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, split_rid
from deriva_ml_core.errors import ConfigurationError, DuplicateRow, UnknownVersion
from deriva_ml_core.models import DatasetSpec, FrozenModel

if TYPE_CHECKING:
    import semver

__all__ = [
    "DatasetVersion",
    "VersionPart",
    "current_version",
    "lookup_version",
    "create_versions",
    "parse_version",
    "resolve_version",
    "version_history",
    "version_rows_at",
]

FIRST_VERSION = "0.1.0"
VERSION_TABLE = MLTable.dataset_version
MAX_LISTED_VERSIONS = 10
"""How many known versions an error names."""


class VersionPart(StrEnum):
    """Which number of a version goes up by one; those after it start again at 0."""

    major = "major"
    minor = "minor"
    patch = "patch"


class DatasetVersion(FrozenModel):
    """One version of a dataset.

    Args:
        rid: The record id of the version's own row.
        dataset: The dataset.
        version: Its number, such as ``0.2.0``.
        description: What changed.
        snapshot: The state of the catalog that holds its members and their values.
        execution: The execution that made it, where one did.
        created: When, in UTC.
    """

    rid: RID
    dataset: RID
    version: str
    description: str = ""
    snapshot: str
    execution: RID | None = None
    created: datetime

    @classmethod
    def from_row(cls, row: Row) -> DatasetVersion:
        """The version that a row of Dataset_Version tells of."""
        return cls(
            rid=row["RID"],
            dataset=row["Dataset"],
            version=row["Version"],
            description=row["Description"] or "",
            snapshot=row["Snapshot"],
            execution=row["Execution"],
            created=row["RCT"],
        )


def version_history(catalog: Catalog, dataset: RID) -> list[DatasetVersion]:
    """All versions of a dataset, the lowest number first."""
    rows = catalog.select(VERSION_TABLE, {"Dataset": dataset})
    return [DatasetVersion.from_row(row) for row in sorted(_finished_rows(rows), key=parse_version)]


def current_version(catalog: Catalog, dataset: RID) -> DatasetVersion:
    """The version with the highest number.

    Raises:
        UnknownVersion: The dataset has none.
    """
    rows = _finished_rows(_recent_version_rows(catalog, [dataset]).get(dataset, ()))
    if not rows:
        raise UnknownVersion(f"Dataset {dataset} has no version yet; make one with dataset.increment_version('minor').")
    return DatasetVersion.from_row(max(rows, key=parse_version))


def lookup_version(connection: Connection, dataset: RID, version: str | None) -> DatasetVersion:
    """One version of a dataset.

    Args:
        connection: The catalog.
        dataset: The dataset; with ``@<snapshot>``, its version of that snapshot is meant where none is given.
        version: Its number; None for the current one.

    Raises:
        UnknownRID, WrongTable: The record id names no dataset.
        UnknownVersion: The dataset has no such version; the newest ones are named.
    """
    rid, snapshot = split_rid(dataset)
    connection.require_row(MLTable.dataset, rid)
    catalog = connection.catalog
    if version is None and snapshot is None:
        return current_version(catalog, rid)
    wanted = {"Version": version} if version is not None else {"Snapshot": snapshot}
    if rows := _finished_rows(catalog.select(VERSION_TABLE, {"Dataset": rid, **wanted})):
        return DatasetVersion.from_row(max(rows, key=parse_version))
    if version is None and snapshot is not None:
        return current_version(catalog.at(snapshot), rid)
    raise UnknownVersion(f"Dataset {rid} has no version {version!r}; {_format_known_versions(catalog, rid)}.")


def resolve_version(connection: Connection, spec: DatasetSpec) -> DatasetSpec:
    """The same dataset with the version that is meant, checked.

    Args:
        connection: The catalog.
        spec: A dataset; without a version the current one is meant.

    Raises:
        UnknownRID, WrongTable: The record id names no dataset.
        UnknownVersion: The dataset has no such version; the newest ones are named.
    """
    found = lookup_version(connection, spec.rid, spec.version)
    return DatasetSpec(rid=found.dataset, version=found.version, materialize=spec.materialize)


def version_rows_at(catalog: Catalog, snapshot: str, datasets: Collection[RID]) -> list[Row]:
    """The row of the version that each dataset had at a snapshot, complete with its snapshot."""
    then = _recent_version_rows(catalog.at(snapshot), datasets)
    # at its own snapshot a version's row does not yet name it, so the rows are read as they are now
    now = catalog.select(VERSION_TABLE, {"RID": [row["RID"] for rows in then.values() for row in rows]})
    return [max(rows, key=parse_version) for rows in _group_by_dataset(_finished_rows(now)).values()]


def create_versions(
    catalog: Catalog, descriptions: Mapping[RID, str], part: VersionPart | str, execution: RID | None = None
) -> dict[RID, str]:
    """Give each dataset its next version, with one snapshot that is taken after the numbers are.

    Safe between processes: a number is taken once, and a version that another process's higher number overtook is
    followed by one above it, so that the highest number always has the newest members.

    Args:
        catalog: The catalog.
        descriptions: What changed, by dataset.
        part: Which number goes up.
        execution: The execution that made the change.

    Returns:
        The new version by dataset.
    """
    part = _parse_version_part(part)
    waiting, numbers, limited = dict(descriptions), dict[RID, str](), True
    while waiting:
        known = _recent_version_rows(catalog, waiting, limited=limited)
        rows = [
            {
                "RID": rid,
                "Dataset": dataset,
                "Version": _next_version(known.get(dataset, ()), part),
                "Description": text,
            }
            for rid, (dataset, text) in zip(catalog.reserve(len(waiting)), waiting.items(), strict=True)
        ]
        try:
            catalog.insert(VERSION_TABLE, [{**row, "Execution": execution} for row in rows])
        except DuplicateRow:
            limited = False
            continue
        snapshot = catalog.snapshot()
        catalog.update(VERSION_TABLE, [{"RID": row["RID"], "Snapshot": snapshot} for row in rows])
        numbers.update({row["Dataset"]: row["Version"] for row in rows})
        known = _recent_version_rows(catalog, waiting)
        _update_current_versions(catalog, known)
        waiting = {row["Dataset"]: waiting[row["Dataset"]] for row in rows if _is_overtaken(row, known[row["Dataset"]])}
    return numbers


def _update_current_versions(catalog: Catalog, version_rows: Mapping[RID, Iterable[Row]]) -> None:
    """Let each dataset's own row name its highest version, for readers who look there; here nobody relies on it."""
    highest = {dataset: max(_finished_rows(rows), key=parse_version) for dataset, rows in version_rows.items()}
    catalog.update(MLTable.dataset, [{"RID": dataset, "Version": row["RID"]} for dataset, row in highest.items()])


def _next_version(rows: Collection[Row], part: VersionPart) -> str:
    if not rows:
        return FIRST_VERSION
    return str(max(map(parse_version, rows)).next_version(part))


def _is_overtaken(new_row: Row, rows: Iterable[Row]) -> bool:
    """Whether a higher number had been taken just before ours, so that its snapshot may be too old for our change."""
    older = list(dropwhile(lambda row: row["RID"] != new_row["RID"], rows))
    return any(parse_version(row) > parse_version(new_row) for row in older)


def _recent_version_rows(catalog: Catalog, datasets: Collection[RID], *, limited: bool = True) -> dict[RID, list[Row]]:
    """The newest version rows of each dataset, newest first: enough to know the highest, and no long history."""
    limit = 20 + 5 * len(datasets) if limited else None
    # one dataset is asked for by itself, as a catalog can then walk its rows in order
    wanted = list(datasets) if len(datasets) > 1 else next(iter(datasets), None)
    rows = catalog.select(VERSION_TABLE, {"Dataset": wanted}, order=("RCT",), descending=True, limit=limit)
    found = _group_by_dataset(rows)
    quiet = [dataset for dataset in datasets if not _finished_rows(found.get(dataset, ()))]
    if quiet and len(rows) == limit:
        found.update(
            _group_by_dataset(catalog.select(VERSION_TABLE, {"Dataset": quiet}, order=("RCT",), descending=True))
        )
    return found


def _group_by_dataset(rows: Iterable[Row]) -> dict[RID, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["Dataset"]].append(row)
    return dict(found)


def _finished_rows(rows: Iterable[Row]) -> list[Row]:
    """Those whose maker lived to note the snapshot; the others' members go into the next version."""
    return [row for row in rows if row["Snapshot"]]


def parse_version(row: Row) -> semver.Version:
    """The number of a version's row.

    Raises:
        ConfigurationError: It is none, so that nobody can say which version is the highest.
    """
    import semver

    try:
        return semver.Version.parse(row["Version"])
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Dataset {row['Dataset']} has a version {row['Version']!r}, which is no number like '1.0.0', as its "
            f"versions need to have an order. Whoever may change {VERSION_TABLE} {row['RID']} should give it one."
        ) from error


def _parse_version_part(part: VersionPart | str) -> VersionPart:
    if part not in tuple(VersionPart):
        raise ConfigurationError(f"A version has no part {part!r}; say {', '.join(map(repr, map(str, VersionPart)))}.")
    return VersionPart(part)


def _format_known_versions(catalog: Catalog, dataset: RID) -> str:
    known = [version.version for version in version_history(catalog, dataset)]
    return f"it has {', '.join(known[-MAX_LISTED_VERSIONS:])}" + (
        f" and {len(known) - MAX_LISTED_VERSIONS} older ones" if len(known) > MAX_LISTED_VERSIONS else ""
    )
