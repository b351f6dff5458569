"""How much is measured: in full, or as little as shows that a benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["FULL", "TINY", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of all benchmarks.

    Args:
        rounds: How often each side of a comparison is run.
        heavy_rounds: The same where one run takes seconds.
        calls: Calls a run, where a call takes less than some milliseconds.
        executions: How many executions a catalog has, the fewest first.
        files: How many small files are uploaded.
        file_bytes: The size of each.
        big_bytes: The size of the one big file.
        members: How many members are added to a dataset at once.
        bags: How many members a dataset has that is downloaded.
        processes: How many write to one catalog at once.
        runs: How many executions each of them makes.
        run_files: How many files each of those has.
        steps: How many steps a fit has whose steps are timed.
        epochs: How many epochs a fit has whose epochs are.
        catalogs: How many seconds a catalog takes to answer while a training runs; None where it is down.
        endings: How trainings end.
        peers: Whether the peers that are installed are measured too.
    """

    rounds: int = 15
    heavy_rounds: int = 5
    calls: int = 50
    executions: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    files: int = 1_000
    file_bytes: int = 4 * 2**10
    big_bytes: int = 256 * 2**20
    members: int = 100_000
    bags: tuple[int, ...] = (100, 10_000)
    processes: int = 8
    runs: int = 50
    run_files: int = 10
    steps: int = 1_000
    epochs: int = 200
    catalogs: tuple[float | None, ...] = (0, 0.05, 2, None)
    endings: tuple[str, ...] = ("normal", "exception", "Ctrl-C", "SIGTERM", "SIGKILL", "fit + fit + test")
    peers: bool = True

    def of_rounds(self, rounds: int) -> Scale:
        """The same, each comparison run so often at most."""
        fewer = {"rounds": min(self.rounds, rounds), "heavy_rounds": min(self.heavy_rounds, rounds)}
        return replace(self, **fewer)


FULL = Scale()
TINY = Scale(
    rounds=1,
    heavy_rounds=1,
    calls=2,
    executions=(3, 6),
    files=3,
    big_bytes=2**20,
    members=20,
    bags=(2,),
    processes=2,
    runs=1,
    run_files=2,
    steps=4,
    epochs=4,
    catalogs=(0.05,),
    endings=("SIGKILL",),
    peers=False,
)
