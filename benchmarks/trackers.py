"""Cost of each tracker in a fit of many steps: this software, Lightning's CSVLogger, and other installed trackers."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from benchmarks.fixtures import committed_script
from benchmarks.processes import ROOT, installed_trackers, run_python, run_script
from benchmarks.scale import Scale
from benchmarks.scripts.first_record import FIRST_RECORD
from benchmarks.scripts.recorders import MODULES, OWN_RECORDERS

SLOW = ("dvclive", "mlflow logger")
"""Trackers that run in every other round only, since they are slow."""

TARGETS = {"deriva-ml": 20e-6, "deriva-ml by step": 100e-6}

Times = dict[str, list[float]]


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Measure the trackers in new processes, in random order in each round."""
    names = ["bare", *OWN_RECORDERS, *installed_trackers(scale)]
    steps, fits, exits = _measure_fits(names, scale, folder / "fits")
    for name in names:
        target = None if name == "bare" else TARGETS.get(name)
        what = "a step" if name == "bare" else "added to a step"
        value = median(steps[name]) - (0 if name == "bare" else median(steps["bare"]))
        yield Figure(what, value, of=name, floor="a bare step", floor_value=median(steps["bare"]), target=target)
        yield Figure("the fit", median(fits[name]), of=name)
        yield Figure("from the fit to the exit", median(exits[name]), of=name)
    measured = ("deriva-ml", *installed_trackers(scale))
    modules = {MODULES[name]: name for name in measured if name in MODULES}
    for module, seconds in _measure_imports(list(modules), scale, folder / "imports").items():
        yield Figure("import", seconds, of=modules[module])
    first = [name for name in FIRST_RECORD if name in measured]
    for name, seconds in _measure_first_records(first, scale, folder / "first_record").items():
        yield Figure("process to first record", seconds, of=name)


def _measure_fits(names: list[str], scale: Scale, folder: Path) -> tuple[Times, Times, Times]:
    steps, fits, exits = (defaultdict[str, list[float]](list) for _ in range(3))
    for turn in range(scale.heavy_rounds):
        for name in random.sample(names, len(names)):
            if name in SLOW and turn % 2:
                continue
            result = run_script("steps", folder, scale.steps, recorder=name)
            steps[name].append(result.figures["step"])
            fits[name].append(result.figures["fit"])
            exits[name].append(result.ended_at - result.figures["fitted"])
            shutil.rmtree(folder)
    return steps, fits, exits


def _measure_imports(modules: list[str], scale: Scale, folder: Path) -> dict[str, float]:
    """Return the seconds that each import adds to an empty Python process."""

    def time_import(module: str) -> float:
        result = run_python(["-c", f"import {module}"], folder)
        return result.ended_at - result.started_at

    medians = _medians(["sys", *modules], time_import, scale)
    return {module: medians[module] - medians["sys"] for module in modules}


def _measure_first_records(names: list[str], scale: Scale, folder: Path) -> dict[str, float]:
    script = committed_script(folder / "repository", (ROOT / "benchmarks" / "scripts" / "first_record.py").read_text())

    def time_first_record(name: str) -> float:
        run_folder = folder / "run"
        result = run_python([script, name, run_folder], run_folder, script.parent)
        shutil.rmtree(run_folder)
        if result.code:
            raise RuntimeError(f"{name} exited with code {result.code}: {result.output}")
        return float(result.figures["first"]) - result.started_at

    return _medians(names, time_first_record, scale)


def _medians(names: list[str], measure: Callable[[str], float], scale: Scale) -> dict[str, float]:
    """Return the median of each, measured in random order after a warm-up run."""
    times: Times = {name: [] for name in names}
    for name in names:
        measure(name)
    for _ in range(scale.heavy_rounds):
        for name in random.sample(names, len(names)):
            times[name].append(measure(name))
    return {name: median(values) for name, values in times.items()}
