"""The sizes of benchmarks: in full, or as small as possible for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["FULL", "TINY", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of all benchmarks.

    Args:
        rounds: Runs of each side of a comparison.
        heavy_rounds: The same for runs that take seconds.
        calls: Calls in a run, for calls that take at most some milliseconds.
        executions: Numbers of executions in catalogs, in ascending order.
        files: Number of small files to upload.
        file_bytes: Size of a small file, in bytes.
        big_bytes: Size of the big file, in bytes.
        members: Number of members to add to a dataset at once.
        bags: Numbers of members in downloaded datasets.
        processes: Number of processes that write to one catalog at once.
        runs: Number of executions that each of these processes creates.
        run_files: Number of files in each of these executions.
        steps: Number of steps in a fit whose steps are timed.
        epochs: Number of epochs in a fit whose epochs are timed.
        catalogs: Response times of the catalog during a training, in seconds; None for a catalog that is down.
        terminations: The ways in which trainings end.
        patch_bytes: Size of a patch that is searched for secrets, in bytes.
        parameters: Number of parameters that are redacted.
        trackers: Whether to measure the other installed trackers too.
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
    terminations: tuple[str, ...] = ("normal", "exception", "Ctrl-C", "SIGTERM", "SIGKILL", "fit + fit + test")
    patch_bytes: int = 5 * 2**20
    parameters: int = 10_000
    trackers: bool = True

    def limit_rounds(self, rounds: int) -> Scale:
        """Return a copy with at most this number of rounds."""
        limited = {"rounds": min(self.rounds, rounds), "heavy_rounds": min(self.heavy_rounds, rounds)}
        return replace(self, **limited)


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
    terminations=("SIGKILL",),
    patch_bytes=2**10,
    parameters=8,
    trackers=False,
)
