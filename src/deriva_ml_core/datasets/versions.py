"""Versions of datasets: ordered numbers, each with a catalog snapshot that preserves the members.

Another client also writes development versions, such as ``0.2.0.post1.dev1``, which have no snapshot until it releases
the dataset. They are read only when they are named, and never changed.
"""

from __future__ import annotations

import re
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
from deriva_ml_core.row_values import convert_values, parse_row_time
from deriva_ml_core.user_warnings import warn

if TYPE_CHECKING:
    from packaging.version import Version

__all__ = [
    "DatasetVersion",
    "VersionPart",
    "current_version",
    "current_version_rows",
    "is_release",
    "lookup_version",
    "create_versions",
    "drop_creations",
    "parse_version",
    "resolve_version",
    "version_history",
    "version_rows_at",
]

FIRST_VERSION = "0.1.0"
VERSION_TABLE = MLTable.dataset_version
_DEVELOPMENT_NUMBER = re.compile(r"\d+\.\d+\.\d+(?:\.post\d+)?\.dev\d+")
MAX_LISTED_VERSIONS = 10
"""Number of known versions that an error names."""


class VersionPart(StrEnum):
    """The number of a version to increment; the numbers after it become 0."""

    major = "major"
    minor = "minor"
    patch = "patch"


class DatasetVersion(FrozenModel):
    """One version of a dataset.

    A development version of another client has the members of the moment at which it was looked up: its `snapshot` is
    of that moment, and the next lookup may find others.

    Args:
        rid: The RID of the version's own row.
        dataset: The RID of the dataset.
        version: The number, such as ``0.2.0``.
        description: What changed.
        snapshot: The catalog snapshot that holds the members and their values.
        execution: The RID of the execution that created the version, or None.
        created: The time of creation, in UTC.
    """

    rid: RID
    dataset: RID
    version: str
    description: str = ""
    snapshot: str
    execution: RID | None = None
    created: datetime

    @property
    def is_development(self) -> bool:
        """Whether it is a development version of another client, whose members can change."""
        return _is_development_number(self.version)

    @classmethod
    def from_row(cls, row: Row) -> DatasetVersion:
        """Create a version from a row of Dataset_Version.

        Raises:
            MalformedData: A value has an unexpected form.
        """
        values = {
            "rid": row["RID"],
            "dataset": row["Dataset"],
            "version": row["Version"],
            "description": row["Description"] or "",
            "snapshot": row["Snapshot"],
            "execution": row["Execution"],
            "created": parse_row_time(VERSION_TABLE, row),
        }
        return convert_values(VERSION_TABLE, row["RID"], lambda: cls.model_validate(values))


def version_history(catalog: Catalog, dataset: RID) -> list[DatasetVersion]:
    """Return all releases of a dataset, the lowest number first."""
    rows = catalog.select(VERSION_TABLE, {"Dataset": dataset})
    return [DatasetVersion.from_row(row) for row in sorted(_select_releases(rows), key=parse_version)]


def current_version(catalog: Catalog, dataset: RID) -> DatasetVersion:
    """Return the release with the highest number.

    Raises:
        UnknownVersion: The dataset has no version.
    """
    rows = _select_releases(_recent_version_rows(catalog, [dataset]).get(dataset, ()))
    if not rows:
        raise UnknownVersion(f"Dataset {dataset} has no version. Create one with dataset.increment_version('minor').")
    return DatasetVersion.from_row(max(rows, key=parse_version))


def current_version_rows(catalog: Catalog, datasets: Collection[RID]) -> dict[RID, Row]:
    """Return the row of the release with the highest number of each dataset that has one."""
    recent = _recent_version_rows(catalog, datasets) if datasets else {}
    releases = {dataset: _select_releases(rows) for dataset, rows in recent.items()}
    return {dataset: max(rows, key=parse_version) for dataset, rows in releases.items() if rows}


def lookup_version(connection: Connection, dataset: RID, version: str | None) -> DatasetVersion:
    """Look up a version of a dataset.

    Args:
        connection: The catalog.
        dataset: The dataset's RID. If it ends in ``@<snapshot>`` and `version` is None, the version at that snapshot.
        version: The number; None for the current one. A development version has the present members, with a warning.

    Raises:
        UnknownRID, WrongTable: The RID names no dataset.
        UnknownVersion: The dataset has no such version. The message names the newest ones.
    """
    rid, snapshot = split_rid(dataset)
    connection.require_row(MLTable.dataset, rid)
    catalog = connection.catalog
    if version is not None and _is_development_number(version):
        return _lookup_development_version(catalog, rid, version)
    if version is None and snapshot is None:
        return current_version(catalog, rid)
    condition = {"Version": version} if version is not None else {"Snapshot": snapshot}
    if rows := _select_releases(catalog.select(VERSION_TABLE, {"Dataset": rid, **condition})):
        return DatasetVersion.from_row(max(rows, key=parse_version))
    if version is None and snapshot is not None:
        return current_version(catalog.at(snapshot), rid)
    raise UnknownVersion(f"Dataset {rid} has no version {version!r}; {_format_known_versions(catalog, rid)}.")


def _lookup_development_version(catalog: Catalog, dataset: RID, version: str) -> DatasetVersion:
    rows = catalog.select(VERSION_TABLE, {"Dataset": dataset, "Version": version})
    if not rows:
        raise UnknownVersion(
            f"Dataset {dataset} has no version {version!r}; {_format_known_versions(catalog, dataset)}."
        )
    warn(
        f"Version {version} of dataset {dataset} is a development version of another client: its members can change, "
        "so a run that reads it is not reproducible. Release the dataset with that client, and name the release."
    )
    return DatasetVersion.from_row({**rows[-1], "Snapshot": catalog.snapshot()})


def resolve_version(connection: Connection, spec: DatasetSpec) -> DatasetSpec:
    """Check that a dataset and its version exist, and fill in the current version if the spec has none.

    Args:
        connection: The catalog.
        spec: The dataset and its version; None for the current one.

    Raises:
        UnknownRID, WrongTable: The RID names no dataset.
        UnknownVersion: The dataset has no such version. The message names the newest ones.
    """
    version = lookup_version(connection, spec.rid, spec.version)
    return DatasetSpec(rid=version.dataset, version=version.version, materialize=spec.materialize)


def version_rows_at(catalog: Catalog, snapshot: str, datasets: Collection[RID]) -> list[Row]:
    """Return the row of the version that each dataset had at a snapshot, including the Snapshot column."""
    then = _recent_version_rows(catalog.at(snapshot), datasets)
    # at its own snapshot a version's row does not name that snapshot yet, so the rows are read as they are now
    now = catalog.select(VERSION_TABLE, {"RID": [row["RID"] for rows in then.values() for row in rows]})
    return [max(rows, key=parse_version) for rows in _group_by_dataset(_select_releases(now)).values()]


def create_versions(
    catalog: Catalog, descriptions: Mapping[RID, str], part: VersionPart | str, execution: RID | None = None
) -> dict[RID, str]:
    """Create the next version of each dataset, with one snapshot that is taken after the numbers are reserved.

    Several processes can call this at once. Each number is used once. If another process reserves a higher number
    first, a further version above it follows, so that the highest number always has the newest members.

    Development versions of another client stay as they are, with a warning.

    Args:
        catalog: The catalog.
        descriptions: What changed, by dataset.
        part: The number to increment.
        execution: The execution that made the change.

    Returns:
        The new version number by dataset.
    """
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    part = _parse_version_part(part)
    waiting, numbers, limited = dict(descriptions), dict[RID, str](), True
    while waiting:
        known = _recent_version_rows(catalog, waiting, limited=limited)
        _warn_about_development(known)
        rows = [
            {
                "RID": rid,
                "Dataset": dataset,
                "Version": _next_version(known.get(dataset, ()), part),
                "Description": redact_text(text),
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


def _warn_about_development(version_rows: Mapping[RID, Iterable[Row]]) -> None:
    for dataset, rows in version_rows.items():
        highest = max(rows, key=parse_version)
        if _is_development_row(highest):
            warn(
                f"Dataset {dataset} is in a development period of another client: its version {highest['Version']} is "
                "not released. The new version is a release with the present members; the other client's version stays."
            )


def _update_current_versions(catalog: Catalog, version_rows: Mapping[RID, Iterable[Row]]) -> None:
    """Set each dataset's Version column to its highest version.

    It serves other programs that read the row; this package does not rely on it.
    """
    highest = {dataset: max(_select_releases(rows), key=parse_version) for dataset, rows in version_rows.items()}
    catalog.update(MLTable.dataset, [{"RID": dataset, "Version": row["RID"]} for dataset, row in highest.items()])


def drop_creations(catalog: Catalog, links: Iterable[Row]) -> list[Row]:
    """Return the links of datasets to executions that read them.

    Another client also links a dataset to the execution that made its first version, which has not read it.

    Args:
        catalog: The catalog.
        links: Rows of the table Dataset_Execution.
    """
    listed = list(links)
    datasets, executions = ({link[column] for link in listed} for column in ("Dataset", "Execution"))
    versions = {"Dataset": sorted(datasets), "Execution": sorted(executions)}
    candidates = {row["Dataset"] for row in catalog.select(VERSION_TABLE, versions)} if listed else set()
    creators: dict[RID, RID | None] = {}
    if candidates:
        for row in catalog.select(VERSION_TABLE, {"Dataset": sorted(candidates)}, order=("RCT", "RID")):
            creators.setdefault(row["Dataset"], row["Execution"])
    return [link for link in listed if creators.get(link["Dataset"]) != link["Execution"]]


def _next_version(rows: Collection[Row], part: VersionPart) -> str:
    if not rows:
        return FIRST_VERSION
    release = max(parse_version(row).release for row in rows)
    kept = (VersionPart.major, VersionPart.minor, VersionPart.patch).index(part)
    return ".".join(map(str, (*release[:kept], release[kept] + 1, *(0,) * (2 - kept))))


def _is_overtaken(new_row: Row, rows: Iterable[Row]) -> bool:
    """Whether a higher number was reserved before this one, so that its snapshot may lack this change."""
    older = list(dropwhile(lambda row: row["RID"] != new_row["RID"], rows))
    return any(parse_version(row) > parse_version(new_row) for row in older if not _is_development_row(row))


def _recent_version_rows(catalog: Catalog, datasets: Collection[RID], *, limited: bool = True) -> dict[RID, list[Row]]:
    """Return the newest version rows of each dataset, newest first: enough to find the highest number.

    Reading the whole history would be slow for datasets with many versions.
    """
    limit = 20 + 5 * len(datasets) if limited else None
    # a single dataset is not wrapped in a list, as a catalog can then read its rows in index order
    value = list(datasets) if len(datasets) > 1 else next(iter(datasets), None)
    rows = catalog.select(VERSION_TABLE, {"Dataset": value}, order=("RCT",), descending=True, limit=limit)
    rows_by_dataset = _group_by_dataset(rows)
    missing = [dataset for dataset in datasets if not _select_releases(rows_by_dataset.get(dataset, ()))]
    if missing and len(rows) == limit:
        rows_by_dataset.update(
            _group_by_dataset(catalog.select(VERSION_TABLE, {"Dataset": missing}, order=("RCT",), descending=True))
        )
    return rows_by_dataset


def _group_by_dataset(rows: Iterable[Row]) -> dict[RID, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["Dataset"]].append(row)
    return dict(groups)


def _select_releases(rows: Iterable[Row]) -> list[Row]:
    """Return the releases.

    Without a snapshot, the process that created the row died before it recorded one; the next version has its members.
    """
    return [row for row in rows if is_release(row)]


def is_release(row: Row) -> bool:
    """Whether a version's row has a snapshot and is no development version of another client."""
    return bool(row["Snapshot"]) and not _is_development_row(row)


def _is_development_row(row: Row) -> bool:
    return isinstance(row["Version"], str) and _is_development_number(row["Version"])


def _is_development_number(version: str) -> bool:
    return _DEVELOPMENT_NUMBER.fullmatch(version) is not None


def parse_version(row: Row) -> Version:
    """Parse the number of a version's row.

    Raises:
        ConfigurationError: It has not three numbers, as releases and development versions have, so that the highest
            version is not defined.
    """
    from packaging.version import Version

    try:
        version = Version(row["Version"])
        if len(version.release) != 3:
            raise ValueError(f"{row['Version']!r} has not three numbers")
        return version
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Dataset {row['Dataset']} has the version {row['Version']!r}, which is not a number like '1.0.0', so that "
            f"its versions have no order. Correct row {row['RID']} of {VERSION_TABLE}."
        ) from error


def _parse_version_part(part: VersionPart | str) -> VersionPart:
    if part not in tuple(VersionPart):
        raise ConfigurationError(
            f"A version has no part {part!r}; use one of {', '.join(map(repr, map(str, VersionPart)))}."
        )
    return VersionPart(part)


def _format_known_versions(catalog: Catalog, dataset: RID) -> str:
    known = [version.version for version in version_history(catalog, dataset)]
    return f"it has {', '.join(known[-MAX_LISTED_VERSIONS:])}" + (
        f" and {len(known) - MAX_LISTED_VERSIONS} older ones" if len(known) > MAX_LISTED_VERSIONS else ""
    )
