"""The files that tell of an execution's trainings: metrics, settings, and their curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import DerivaMLException, UnknownTerm
from deriva_ml_core.execution.card import CURVES_FILE
from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.training.facts import FACTS_FILE, TrainingFacts
from deriva_ml_core.training.metrics import METRICS_FILE, MetricsFile

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["Record"]

log = logging.getLogger(__name__)


class Record:
    """The files of one execution's trainings, in its working folder, from where they are copied when they are sent.

    Args:
        execution: Whose.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        folder = execution.working_dir
        self._metrics = MetricsFile(folder / METRICS_FILE)
        self._facts = TrainingFacts(folder / FACTS_FILE)
        self._curves = folder / CURVES_FILE
        self._held: list[tuple[int, Mapping[str, object]]] = []
        self._lock = ForkLock()
        self._registered: dict[Path, tuple[int, int]] = {}
        self._is_refused = False
        """Whether the last line of metrics could not be written, which has been said."""

    def next_fit(self) -> int:
        """The number of the fit that begins now."""
        return max(self._metrics.last_fit(), self._facts.last_fit()) + 1

    def append(
        self,
        stage: str,
        by: str,
        fit: int,
        epoch: int | None,
        step: int | None,
        values: Mapping[str, float],
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Add a line of metrics; see `MetricsFile.append`. What a full disk refuses waits, and is warned about once."""
        try:
            try:
                if self._metrics.path not in self._registered:  # not before the first: a fit without one has no file
                    self._register(self._metrics.path, "Metrics_File")
            finally:
                self._metrics.append(stage=stage, fit=fit, by=by, epoch=epoch, step=step, values=values, more=more)
        except (OSError, DerivaMLException) as error:
            if not self._is_refused:
                log.warning(
                    "%s cannot be written or staged now, and is as soon as it can: %s", self._metrics.path, error
                )
            self._is_refused = True
        else:
            self._is_refused = False

    def hold(self, fit: int, facts: Mapping[str, object]) -> None:
        """Keep what is told of a fit until `write_facts` writes it, beside the training."""
        with self._lock:
            self._held.append((fit, facts))
        if self._facts.path not in self._registered:
            self._register(self._facts.path, "Execution_Config")

    def write_facts(self) -> None:
        """Write what was held.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            held, self._held = self._held, []
        for fit, facts in held:
            self._facts.tell(fit, facts)

    def register(self, *, curves: bool) -> None:
        """Stage what was written since it was last staged.

        Args:
            curves: Whether to draw the metrics anew.
        """
        self._metrics.write_waiting()
        if self._facts.path.exists():
            self._register(self._facts.path, "Execution_Config")
        if not self._metrics.path.exists():
            return
        is_new = self._register(self._metrics.path, "Metrics_File")
        if curves and (is_new or not self._curves.exists()):
            self._draw()

    def _draw(self) -> None:
        from deriva_ml_core.training.curves import draw_curves

        drawn = self._curves.with_name(f".writing-{CURVES_FILE}")
        if draw_curves(self._metrics.path, drawn, self.execution.description):
            if not self._curves.exists() or drawn.read_bytes() != self._curves.read_bytes():
                drawn.replace(self._curves)
            drawn.unlink(missing_ok=True)
            self._register(self._curves, "Training_Curves")

    def _register(self, path: Path, asset_type: str) -> bool:
        """Stage a file that was written to since it was staged; returns whether it has."""
        if not path.exists():
            path.touch()
        found = path.stat()
        if self._registered.get(path) == (found.st_size, found.st_mtime_ns):
            return False
        table = MLAsset.execution_metadata.value
        try:
            self.execution.asset_file_path(table, path, asset_types=[asset_type])
        except UnknownTerm:  # a catalog with a vocabulary of its own
            self.execution.asset_file_path(table, path)
        self._registered[path] = (found.st_size, found.st_mtime_ns)
        return True
