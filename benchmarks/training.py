"""What recording takes of a training: of a step, of an epoch, of a whole fit, and of the process' end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

from benchmarks.figures import Figure, compared
from benchmarks.fresh import measured
from benchmarks.measure import Beside
from benchmarks.scale import Scale


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare fits with and without ours, which take turns in one process; then time our hooks themselves."""
    yield from _steps(scale, folder / "steps")
    for seconds in scale.catalogs:
        answers = "down" if seconds is None else f"{seconds:g}"
        yield from _epochs(answers, scale, folder / f"catalog-{answers}")
    yield from _fits(scale, folder / "fits")
    yield _ends(scale, folder / "ends")


def _steps(scale: Scale, folder: Path) -> Iterator[Figure]:
    subjects = {"by epoch": ("ours", 20e-6), "of each step": ("ours by step", 100e-6)}
    names = ["bare", *(name for name, _ in subjects.values())]
    taken = measured("turns", folder, scale.rounds, 1, scale.steps, *names).figures
    for how, (name, target) in subjects.items():
        pairs = list(zip(taken[name], taken["bare"], strict=True))
        added, typical = (median(ours[step] - bare[step] for ours, bare in pairs) for step in ("step", "typical step"))
        least = median(bare["step"] for _, bare in pairs)
        what, note = f"added to a step, metrics {how} kept", f"to the median step {typical * 1e6:.0f} µs"
        yield Figure(what, added, "s", "a step without", least, target=target, note=note)


def _epochs(answers: str, scale: Scale, folder: Path) -> Iterator[Figure]:
    told = measured("epochs", folder, scale.epochs // 2, 5, answers).figures
    catalog = "is down" if answers == "down" else f"answers in {float(answers) * 1e3:,.0f} ms"
    note = f"median {median(told['epochs']) * 1e3:.2f} ms"
    yield Figure(f"our hooks in one epoch; the catalog {catalog}", mean(told["epochs"]), target=1e-3, note=note)
    yield Figure("its calls made by the training's thread", told["asked_by_training"], "calls", target=0)


def _fits(scale: Scale, folder: Path) -> Iterator[Figure]:
    subjects = {"no checkpoints": ("ours", "bare"), "a checkpoint each epoch": ("ours+saved", "bare+saved")}
    names = [name for both in subjects.values() for name in both]
    taken = measured("turns", folder, scale.heavy_rounds, scale.epochs, 20, *names).figures
    for how, (name, without) in subjects.items():
        ours, bare = ([figures["fit"] for figures in taken[each]] for each in (name, without))
        ratio = median(one / least for one, least in zip(ours, bare, strict=True))
        what = f"a fit of {scale.epochs} epochs of 20 steps, {how}"
        yield compared(what, "the same without", Beside(median(ours), median(bare), ratio), target=1.02)


def _ends(scale: Scale, folder: Path) -> Figure:
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(2 * scale.heavy_rounds):
        for name in sorted(taken, reverse=bool(turn % 2)):
            done = measured("steps", folder / f"{turn}-{name}", 10, recorder=name)
            taken[name].append(done.ended - float(done.figures["last"]))
    ratio = median(ours / bare for ours, bare in zip(taken["ours"], taken["bare"], strict=True))
    found = Beside(median(taken["ours"]), median(taken["bare"]), ratio)
    return compared("the process' end, all uploaded", "that of the bare script", found, target=1.05)
