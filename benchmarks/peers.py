"""What each recorder costs one fit of many steps: ours, Lightning's CSVLogger, and the peers that are installed."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.contest.cold import FIRST
from benchmarks.contest.recorders import MODULES, OURS
from benchmarks.figures import Figure
from benchmarks.fresh import ROOT, Done, measured, peers, started
from benchmarks.places import committed_script
from benchmarks.scale import Scale

SLOW = ("dvclive", "mlflow logger")
"""These take so long that they run in every other round; what they add needs no more."""

TARGETS = {"ours": 20e-6, "ours by step": 100e-6}

Taken = dict[str, list[float]]


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Let all take turns, in another order each round, in fresh processes."""
    names = ["bare", *OURS, *peers(scale)]
    steps, fits, ends = _turns(names, scale, folder / "turns")
    for name in names:
        target = None if name == "bare" else TARGETS.get(name)
        what = "a step" if name == "bare" else "added to a step"
        value = median(steps[name]) - (0 if name == "bare" else median(steps["bare"]))
        yield Figure(what, value, of=name, floor="a bare step", floor_value=median(steps["bare"]), target=target)
        yield Figure("the fit", median(fits[name]), of=name)
        yield Figure("from the fit to the process' end", median(ends[name]), of=name)
    modules = {MODULES[name]: name for name in ("ours", *peers(scale)) if name in MODULES}
    for module, taken in _imports(list(modules), scale, folder / "imports").items():
        yield Figure("import", taken, of=modules[module])
    for name, taken in _colds(
        [name for name in FIRST if name in ("ours", *peers(scale))], scale, folder / "cold"
    ).items():
        yield Figure("process to first record", taken, of=name)


def _turns(names: list[str], scale: Scale, folder: Path) -> tuple[Taken, Taken, Taken]:
    steps, fits, ends = (defaultdict[str, list[float]](list) for _ in range(3))
    for turn in range(scale.heavy_rounds):
        for name in random.sample(names, len(names)):
            if name in SLOW and turn % 2:
                continue
            done = measured("steps", folder, scale.steps, recorder=name)
            steps[name].append(done.figures["step"])
            fits[name].append(done.figures["fit"])
            ends[name].append(done.ended - done.figures["fitted"])
            shutil.rmtree(folder)
    return steps, fits, ends


def _imports(modules: list[str], scale: Scale, folder: Path) -> dict[str, float]:
    """What each module adds to a bare Python process."""

    def one(module: str) -> float:
        done = started(["-c", f"import {module}"], folder)
        return done.ended - done.began

    taken = _in_turn(["sys", *modules], one, scale)
    return {module: taken[module] - taken["sys"] for module in modules}


def _colds(names: list[str], scale: Scale, folder: Path) -> dict[str, float]:
    script = committed_script(folder / "repository", (ROOT / "benchmarks" / "contest" / "cold.py").read_text())

    def one(name: str) -> float:
        place = folder / "place"
        done: Done = started([script, name, place], place, script.parent)
        shutil.rmtree(place)
        if done.code:
            raise RuntimeError(f"{name} ended with {done.code}: {done.said}")
        return float(done.figures["first"]) - done.began

    return _in_turn(names, one, scale)


def _in_turn(names: list[str], one: Callable[[str], float], scale: Scale) -> dict[str, float]:
    """The median of each, after one run that does not count."""
    taken: Taken = {name: [] for name in names}
    for name in names:
        one(name)
    for _ in range(scale.heavy_rounds):
        for name in random.sample(names, len(names)):
            taken[name].append(one(name))
    return {name: median(each) for name, each in taken.items()}
