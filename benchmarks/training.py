"""Time that recording adds to a training: to a step, an epoch, a whole fit, and the exit of the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

from benchmarks.figures import Figure, comparison_figure
from benchmarks.processes import run_script
from benchmarks.scale import Scale
from benchmarks.timing import Comparison


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare alternating fits with and without the callback in one process; then time the callback's hooks."""
    yield from _measure_steps(scale, folder / "steps")
    for latency in scale.catalogs:
        argument = "down" if latency is None else f"{latency:g}"
        yield from _measure_epochs(argument, scale, folder / f"catalog-{argument}")
    yield from _measure_fits(scale, folder / "fits")
    yield _measure_exits(scale, folder / "exits")


def _measure_steps(scale: Scale, folder: Path) -> Iterator[Figure]:
    subjects = {"each epoch": ("deriva-ml", 20e-6), "each step": ("deriva-ml by step", 100e-6)}
    names = ["bare", *(name for name, _ in subjects.values())]
    times = run_script("alternating_fits", folder, scale.rounds, 1, scale.steps, *names).figures
    for interval, (name, target) in subjects.items():
        pairs = list(zip(times[name], times["bare"], strict=True))
        added, typical = (
            median(recorded[step] - bare[step] for recorded, bare in pairs) for step in ("step", "typical step")
        )
        floor = median(bare["step"] for _, bare in pairs)
        what, note = f"added to a step, metrics of {interval} recorded", f"to the median step {typical * 1e6:.0f} µs"
        yield Figure(what, added, "s", "a step without recording", floor, target=target, note=note)


def _measure_epochs(latency: str, scale: Scale, folder: Path) -> Iterator[Figure]:
    figures = run_script("callback_time", folder, scale.epochs // 2, 5, latency).figures
    catalog = "is down" if latency == "down" else f"answers in {float(latency) * 1e3:,.0f} ms"
    note = f"median {median(figures['epochs']) * 1e3:.2f} ms"
    yield Figure(f"the callback in one epoch, the catalog {catalog}", mean(figures["epochs"]), target=1e-3, note=note)
    yield Figure("catalog calls by the training's thread", figures["training_calls"], "calls", target=0)


def _measure_fits(scale: Scale, folder: Path) -> Iterator[Figure]:
    subjects = {"no checkpoints": ("deriva-ml", "bare"), "a checkpoint each epoch": ("deriva-ml+saved", "bare+saved")}
    names = [name for pair in subjects.values() for name in pair]
    times = run_script("alternating_fits", folder, scale.heavy_rounds, scale.epochs, 20, *names).figures
    for kind, pair in subjects.items():
        what = f"a fit of {scale.epochs} epochs of 20 steps, {kind}"
        recorded, bare = ([figures["fit"] for figures in times[name]] for name in pair)
        yield comparison_figure(what, "the same without recording", _compare_times(recorded, bare), target=1.02)


def _measure_exits(scale: Scale, folder: Path) -> Figure:
    times: dict[str, list[float]] = {"deriva-ml": [], "bare": []}
    for turn in range(2 * scale.heavy_rounds):
        for name in sorted(times, reverse=bool(turn % 2)):
            result = run_script("steps", folder / f"{turn}-{name}", 10, recorder=name)
            times[name].append(result.ended_at - float(result.figures["last"]))
    comparison = _compare_times(times["deriva-ml"], times["bare"])
    return comparison_figure("exit of the process, everything uploaded", "exit without recording", comparison, 1.05)


def _compare_times(subject: list[float], floor: list[float]) -> Comparison:
    ratio = median(seconds / floor_seconds for seconds, floor_seconds in zip(subject, floor, strict=True))
    return Comparison(median(subject), median(floor), ratio)
