"""``python -m benchmarks [name…] [--json FILE]``: measure, draw the tables, and keep the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.figures import Figure, tables
from benchmarks.scale import FULL, Scale

BENCHMARKS = (
    "imports",
    "starting",
    "hooks",
    "detection",
    "catalog",
    "commands",
    "running",
    "uploading",
    "members",
    "bags",
    "remote",
    "crowd",
    "training",
    "peers",
    "checkpoints",
    "endings",
)
"""The subjects, each a module of this package with a ``run(scale, folder)``."""

RESULTS = Path(__file__).parent / "results"


def measured(names: Sequence[str], scale: Scale, folder: Path | None = None) -> Iterator[tuple[str, Figure]]:
    """The figures of benchmarks as they come, each with its benchmark's name.

    Args:
        names: Which ones.
        scale: How much.
        folder: The disk that is measured: a temporary folder is made in this one, by default in the system's own.
    """
    for name in names:
        os.sync()  # what the last one wrote is not to be waited for by this one
        with TemporaryDirectory(prefix=f"deriva-ml-{name}-", dir=folder) as place:
            for figure in import_module(f"benchmarks.{name}").run(scale, Path(place)):
                yield name, figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What this software costs.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", type=Path, help="where to write the figures; a file in benchmarks/results by default")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; the temporary one by default")
    parser.add_argument("--rounds", type=int, help="at most so many rounds of each comparison, for a quick look")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if asked.rounds is not None and asked.rounds < 1:
        parser.error("--rounds must be 1 or more")
    scale = FULL if asked.rounds is None else FULL.of_rounds(asked.rounds)
    console, figures = Console(stderr=True), []
    with console.status("Measuring") as status:
        for name, figure in measured(asked.names or BENCHMARKS, scale, asked.folder):
            figures.append((name, figure))
            status.update(f"Measuring {name}: {figure.what}")
    Console(width=None if sys.stdout.isatty() else 160).print(*tables(figures))
    console.print(f"Written to {_write(asked.json, figures)}")


def _write(file: Path | None, figures: Sequence[tuple[str, Figure]]) -> Path:
    time = datetime.now(UTC)
    file = file or RESULTS / (platform.node() or "unnamed") / f"{time:%Y%m%dT%H%M%SZ}.json"
    machine = {"name": platform.node(), "platform": platform.platform(), "python": platform.python_version()}
    lines: list[dict[str, Any]] = [
        {"benchmark": name, **asdict(figure), "holds": figure.holds} for name, figure in figures
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"time": time.isoformat(), "machine": machine, "figures": lines}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
