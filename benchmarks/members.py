"""Time to add many members to a dataset at once, and memory to list them."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, time_call
from deriva_ml import DerivaML
from deriva_ml_core.schema import DOMAIN_SCHEMA, Column, Table

TABLE = "Sample"
Members = list[str] | dict[str, list[str]]


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare one call with the driver's executemany of the same rows, and measure the peak memory of listing."""
    ml = open_catalog(folder)
    ml.create_table(Table(TABLE, (Column("Value"),), schema=DOMAIN_SCHEMA))
    ml.add_dataset_element_type(TABLE)
    ml.insert_rows(TABLE, [{"Value": "x"}] * scale.members)
    rids = [row["RID"] for page in ml.connection.catalog.pages(TABLE) for row in page]
    whole = _create_dataset(ml, rids)
    rows = [tuple(row.values()) for page in ml.connection.catalog.pages(f"Dataset_{TABLE}") for row in page]
    numbers, what = count(), f"add_dataset_members with {scale.members:,} RIDs"
    forms: dict[str, Members] = {"": rids, " by table": {TABLE: rids}}
    for form, members in forms.items():
        subject = partial(_time_adding, ml, members)
        comparison = compare(
            subject, lambda: _time_inserting(folder / f"bare-{next(numbers)}.sqlite", rows), scale.heavy_rounds
        )
        yield comparison_figure(what + form, "executemany of the same rows", comparison, target=5)
    few = _peak_memory(ml, _create_dataset(ml, rids[: scale.members // 10]))
    all_ = _peak_memory(ml, whole)
    yield Figure(
        f"memory to list {scale.members:,} members in pages",
        all_ / 2**20,
        "MiB",
        "a tenth of them",
        few / 2**20,
        all_ / few,
        1.2,
    )


def _create_dataset(ml: DerivaML, rids: list[str]) -> str:
    dataset = ml.create_dataset("A benchmark")
    dataset.add_dataset_members({TABLE: rids})
    return dataset.rid


def _time_adding(ml: DerivaML, members: Members) -> float:
    dataset = ml.create_dataset("A benchmark")
    return time_call(lambda: dataset.add_dataset_members(members))


def _time_inserting(file: Path, rows: list[tuple[str, ...]]) -> float:
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

    seconds = time_call(insert)
    connection.close()
    file.unlink()
    return seconds


def _peak_memory(ml: DerivaML, rid: str) -> int:
    dataset = ml.lookup_dataset(rid)
    tracemalloc.start()
    listed = sum(len(page) for page in dataset.iterate_dataset_members(TABLE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed, rid
    return peak
