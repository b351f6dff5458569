"""How much is measured: in full, or as little as shows that a benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass

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
)
