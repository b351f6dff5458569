"""What a recorder kept: ``python -m benchmarks.contest.reading <recorder> <folder>``."""

from __future__ import annotations

import csv
import json
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Kept"]


@dataclass
class Kept:
    """What a store says.

    Args:
        states: How each run went, in the store's own word; empty where it has none.
        values: All numbers that it kept of metrics.
    """

    states: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def _ours(folder: Path) -> Kept:
    from benchmarks.places import open_catalog
    from deriva_ml_core.models import UploadOptions

    ml, kept = open_catalog(folder / "home"), Kept()
    for execution in ml.find_executions():
        kept.states.append(execution.status.value)
        file = execution.working_dir / "metrics.jsonl"
        sent = [asset for asset in execution.list_assets("Output") if asset.filename == file.name]
        if sent:  # what the catalog has counts
            newest = max(sent, key=lambda asset: asset.rid)
            file = folder / "fetched.jsonl"
            ml.connection.store.get(newest.url, file, length=newest.length, md5=newest.md5, options=UploadOptions())
        for line in file.read_bytes().splitlines() if file.exists() else ():
            kept.values.extend(json.loads(line)["values"].values())
    return kept


def _csv(folder: Path) -> Kept:
    kept = Kept()
    for file in folder.rglob("metrics.csv"):
        with file.open(newline="") as opened:
            kept.values.extend(float(cell) for row in csv.DictReader(opened) for cell in row.values() if cell)
    return kept


def _mlflow(folder: Path) -> Kept:
    with sqlite3.connect(folder / "mlflow.sqlite") as store:
        states = [state for (state,) in store.execute("SELECT status FROM runs")]
        return Kept(states, [value for (value,) in store.execute("SELECT value FROM metrics")])


def _wandb(folder: Path) -> Kept:
    from wandb.proto import wandb_internal_pb2

    kept = Kept()
    for file in folder.rglob("*.wandb"):
        state = ""  # a run that was killed leaves no word
        for raw in _log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(raw)
            if record.WhichOneof("record_type") == "exit":
                state = f"exit {record.exit.exit_code}"
            kept.values.extend(
                found for item in record.history.item if isinstance(found := json.loads(item.value_json), float | int)
            )
        kept.states.append(state)
    return kept


def _log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, after the seven bytes that W&B puts first."""
    block, place, whole = 2**15, 7, b""
    while place + 7 <= len(content):
        left = block - place % block
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part = content[place + 7 : place + 7 + length]
        if kind == 0 or len(part) < length:  # nothing was written from here on, or half
            return
        place += 7 + length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole


def _dvclive(folder: Path) -> Kept:
    kept = Kept()
    for file in folder.rglob("plots/metrics/**/*.tsv"):
        with file.open(newline="") as opened:
            kept.values.extend(float(row[file.stem]) for row in csv.DictReader(opened, delimiter="\t"))
    return kept


def _aim(folder: Path) -> Kept:
    from aim import Repo, Run
    from aim.sdk.index_manager import RepoIndexManager

    repo, kept = Repo.from_path(str(folder)), Kept()
    for name in repo.list_all_runs():
        RepoIndexManager.get_index_manager(repo).index(name)  # as its interface does before it shows a run
        run = Run(name, repo=repo, read_only=True)
        kept.states.append("ended" if run.end_time else "active")
        for metric in run.metrics():
            _, values = metric.values.sparse_numpy()
            kept.values.extend(float(value) for value in values)
    return kept


READERS: dict[str, Callable[[Path], Kept]] = {
    "ours": _ours,
    "ours by step": _ours,
    "ours alone": _ours,
    "lightning csv": _csv,
    "mlflow autolog": _mlflow,
    "mlflow logger": _mlflow,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}


if __name__ == "__main__":
    place = Path(sys.argv[2])
    (place / "kept.json").write_text(json.dumps(asdict(READERS[sys.argv[1]](place))))
