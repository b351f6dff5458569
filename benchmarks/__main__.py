"""``python -m benchmarks [name…] [--json FILE]``: run benchmarks, print tables, and write the figures to a file."""

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
    "startup",
    "hooks",
    "detection",
    "catalog",
    "commands",
    "execution",
    "uploads",
    "members",
    "bags",
    "remote",
    "s3",
    "searches",
    "concurrency",
    "training",
    "trackers",
    "checkpoints",
    "terminations",
)
"""The benchmarks; each is a module of this package with a function ``run(scale, folder)``."""

RESULTS = Path(__file__).parent / "results"


def run_benchmarks(names: Sequence[str], scale: Scale, folder: Path | None = None) -> Iterator[tuple[str, Figure]]:
    """Run benchmarks, and yield each figure with the name of its benchmark.

    Args:
        names: The benchmarks to run.
        scale: The sizes.
        folder: The folder in which to create temporary folders, on the disk to measure; None for the system's own.
    """
    for name in names:
        os.sync()  # so that this benchmark does not wait for writes of the last one
        with TemporaryDirectory(prefix=f"deriva-ml-{name}-", dir=folder) as temporary:
            for figure in import_module(f"benchmarks.{name}").run(scale, Path(temporary)):
                yield name, figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the costs of this software.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", type=Path, help="file for the figures; by default a new one in benchmarks/results")
    parser.add_argument("--folder", type=Path, help="folder on the disk to measure; by default the temporary folder")
    parser.add_argument("--rounds", type=int, help="maximum number of rounds of each comparison, for a quick run")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    scale = FULL if options.rounds is None else FULL.limit_rounds(options.rounds)
    console, figures = Console(stderr=True), []
    with console.status("Measuring") as status:
        for name, figure in run_benchmarks(options.names or BENCHMARKS, scale, options.folder):
            figures.append((name, figure))
            status.update(f"Measuring {name}: {figure.what}")
    Console(width=None if sys.stdout.isatty() else 160).print(*tables(figures))
    console.print(f"Figures written to {_write_figures(options.json, figures)}")


def _write_figures(file: Path | None, figures: Sequence[tuple[str, Figure]]) -> Path:
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
