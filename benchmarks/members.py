"""What it costs to add many members to a dataset at once, and what memory it takes to list them."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, seconds
from benchmarks.places import open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML
from deriva_ml_core.schema import DOMAIN_SCHEMA, Column, Table

TABLE = "Sample"
Members = list[str] | dict[str, list[str]]


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time one call beside the driver's executemany of the rows that it made; follow the memory of listing."""
    ml = open_catalog(folder)
    ml.create_table(Table(TABLE, (Column("Value"),), schema=DOMAIN_SCHEMA))
    ml.add_dataset_element_type(TABLE)
    ml.insert_rows(TABLE, [{"Value": "x"}] * scale.members)
    rids = [row["RID"] for page in ml.connection.catalog.pages(TABLE) for row in page]
    whole = _dataset(ml, rids)
    rows = [tuple(row.values()) for page in ml.connection.catalog.pages(f"Dataset_{TABLE}") for row in page]
    names, what = count(), f"add_dataset_members of {scale.members:,} record ids"
    given: dict[str, Members] = {"": rids, " by table": {TABLE: rids}}
    for how, members in given.items():
        subject = partial(_added, ml, members)
        taken = beside(subject, lambda: _inserted(folder / f"bare-{next(names)}.sqlite", rows), scale.heavy_rounds)
        yield compared(what + how, "a bare executemany of the same rows", taken, target=5)
    few = _peak(ml, _dataset(ml, rids[: scale.members // 10]))
    all_ = _peak(ml, whole)
    yield Figure(
        f"memory to list {scale.members:,} members in pages",
        all_ / 2**20,
        "MiB",
        "a tenth of them",
        few / 2**20,
        all_ / few,
        1.2,
    )


def _dataset(ml: DerivaML, rids: list[str]) -> str:
    dataset = ml.create_dataset("A benchmark")
    dataset.add_dataset_members({TABLE: rids})
    return dataset.rid


def _added(ml: DerivaML, members: Members) -> float:
    dataset = ml.create_dataset("A benchmark")
    return seconds(lambda: dataset.add_dataset_members(members))


def _inserted(file: Path, rows: list[tuple[str, ...]]) -> float:
    connection = sqlite3.connect(file, isolation_level=None)
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}")
    width = len(rows[0])
    connection.execute(
        f"CREATE TABLE Member (RID TEXT PRIMARY KEY, {', '.join(f'c{n} TEXT' for n in range(1, width))})"
    )

    def insert() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO Member VALUES ({', '.join('?' * width)})", rows)
        connection.execute("COMMIT")

    taken = seconds(insert)
    connection.close()
    file.unlink()
    return taken


def _peak(ml: DerivaML, rid: str) -> int:
    dataset = ml.lookup_dataset(rid)
    tracemalloc.start()
    listed = sum(len(page) for page in dataset.iterate_dataset_members(TABLE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed, rid
    return peak
