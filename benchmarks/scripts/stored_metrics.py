"""Read what a tracker has stored: ``python -m benchmarks.scripts.stored_metrics <tracker> <folder>``."""

from __future__ import annotations

import csv
import json
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["StoredMetrics"]


@dataclass
class StoredMetrics:
    """What a tracker has stored.

    Args:
        states: The status of each run, in the tracker's own terms; an empty text for a run without one.
        values: All values of metrics.
    """

    states: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def _deriva_ml(folder: Path) -> StoredMetrics:
    from benchmarks.fixtures import open_catalog
    from deriva_ml_core.models import UploadOptions

    ml, stored = open_catalog(folder / "home"), StoredMetrics()
    for execution in ml.find_executions():
        stored.states.append(execution.status.value)
        file = execution.working_dir / "metrics.jsonl"
        uploaded = [asset for asset in execution.list_assets("Output") if asset.filename == file.name]
        if uploaded:  # the uploaded file is preferred to the local one
            newest = max(uploaded, key=lambda asset: asset.rid)
            file = folder / "fetched.jsonl"
            ml.connection.store.get(newest.url, file, length=newest.length, md5=newest.md5, options=UploadOptions())
        for line in file.read_bytes().splitlines() if file.exists() else ():
            stored.values.extend(json.loads(line)["values"].values())
    return stored


def _csv(folder: Path) -> StoredMetrics:
    stored = StoredMetrics()
    for file in folder.rglob("metrics.csv"):
        with file.open(newline="") as opened:
            stored.values.extend(float(cell) for row in csv.DictReader(opened) for cell in row.values() if cell)
    return stored


def _mlflow(folder: Path) -> StoredMetrics:
    with sqlite3.connect(folder / "mlflow.sqlite") as store:
        states = [state for (state,) in store.execute("SELECT status FROM runs")]
        return StoredMetrics(states, [value for (value,) in store.execute("SELECT value FROM metrics")])


def _wandb(folder: Path) -> StoredMetrics:
    from wandb.proto import wandb_internal_pb2

    stored = StoredMetrics()
    for file in folder.rglob("*.wandb"):
        state = ""  # a killed run stores no status
        for raw in _log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(raw)
            if record.WhichOneof("record_type") == "exit":
                state = f"exit {record.exit.exit_code}"
            stored.values.extend(
                found for item in record.history.item if isinstance(found := json.loads(item.value_json), float | int)
            )
        stored.states.append(state)
    return stored


def _log_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, after the seven bytes that W&B puts first."""
    block, offset, record = 2**15, 7, b""
    while offset + 7 <= len(content):
        rest = block - offset % block
        if rest < 7:
            offset += rest
            continue
        _, length, kind = struct.unpack("<IHB", content[offset : offset + 7])
        part = content[offset + 7 : offset + 7 + length]
        if kind == 0 or len(part) < length:  # the rest is unwritten or incomplete
            return
        offset += 7 + length
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):
            yield record


def _dvclive(folder: Path) -> StoredMetrics:
    stored = StoredMetrics()
    for file in folder.rglob("plots/metrics/**/*.tsv"):
        with file.open(newline="") as opened:
            stored.values.extend(float(row[file.stem]) for row in csv.DictReader(opened, delimiter="\t"))
    return stored


def _aim(folder: Path) -> StoredMetrics:
    from aim import Repo, Run
    from aim.sdk.index_manager import RepoIndexManager

    repo, stored = Repo.from_path(str(folder)), StoredMetrics()
    for name in repo.list_all_runs():
        RepoIndexManager.get_index_manager(repo).index(name)  # its interface does this before it shows a run
        run = Run(name, repo=repo, read_only=True)
        stored.states.append("ended" if run.end_time else "active")
        for metric in run.metrics():
            _, values = metric.values.sparse_numpy()
            stored.values.extend(float(value) for value in values)
    return stored


READERS: dict[str, Callable[[Path], StoredMetrics]] = {
    "deriva-ml": _deriva_ml,
    "deriva-ml by step": _deriva_ml,
    "deriva-ml alone": _deriva_ml,
    "lightning csv": _csv,
    "mlflow autolog": _mlflow,
    "mlflow logger": _mlflow,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}


if __name__ == "__main__":
    run_folder = Path(sys.argv[2])
    (run_folder / "stored.json").write_text(json.dumps(asdict(READERS[sys.argv[1]](run_folder))))
