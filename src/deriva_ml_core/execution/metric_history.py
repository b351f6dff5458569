"""The metrics of one execution: their values over time, and where the last and the best of them are."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._lazy import require_extra
from deriva_ml_core.assets.lookup import cache_asset, download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import Role
from deriva_ml_core.errors import CatalogReadOnly, DerivaMLException
from deriva_ml_core.execution.record_files import METRICS_TYPES, WithState, select_metadata_assets
from deriva_ml_core.models import Asset, MetricSummary, MetricValue
from deriva_ml_core.training.metric_rows import MetricRow, check_row_filters, read_metric_rows
from deriva_ml_core.training.metrics_file import METRICS_FILE, iter_values

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["build_dataframe", "load_metric_rows", "locate_metrics"]

log = logging.getLogger(__name__)


class WithMetrics(WithState, Protocol):
    """The attributes of an execution that lead to its metrics; implemented by recorded and live executions."""

    @property
    def _connection(self) -> Connection: ...
    @property
    def working_dir(self) -> Path: ...

    def list_assets(self, asset_role: Role | str | None = None) -> list[Asset]: ...


class _Position(NamedTuple):
    value: float
    epoch: int | None
    step: int | None


def load_metric_rows(
    execution: WithMetrics,
    metrics: str | Iterable[str] | None = None,
    *,
    stage: str | None = None,
    by: str | None = None,
    max_points: int | None = None,
) -> list[MetricRow]:
    """Return the values of an execution's metrics; see ``RecordedExecution.metric_rows``."""
    check_row_filters(stage=stage, by=by, max_points=max_points)
    names = [metrics] if isinstance(metrics, str) else None if metrics is None else list(dict.fromkeys(metrics))
    with _open_metrics_file(execution) as file:
        if file is None:
            return []
        return read_metric_rows(file, metrics=names, stage=stage, by=by, max_points=max_points)


def build_dataframe(load_rows: Callable[[], list[MetricRow]]) -> pd.DataFrame:
    """Return rows as a DataFrame; see ``RecordedExecution.metrics_dataframe``.

    Raises:
        MissingDependency: pandas is not installed.
    """
    with require_extra("pandas", "A DataFrame"):
        import pandas as pd
    rows = load_rows()
    frame = pd.DataFrame({name: [row.get(name) for row in rows] for name in MetricRow.__annotations__})
    frame = frame.astype({"fit": "int64", "epoch": "Int64", "step": "Int64", "value": "float64"})
    frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601", errors="coerce")
    return frame


def locate_metrics(execution: WithMetrics, summaries: Sequence[MetricSummary]) -> dict[str, MetricValue]:
    """Return metrics with the epochs and steps of their last and best values, by label."""
    if not summaries:
        return {}
    found: dict[tuple[str, str], tuple[_Position | None, _Position | None]] = {}
    wanted = {(summary.stage, summary.name): summary for summary in summaries}
    for stage, name, position in _iter_positions(execution):
        if (summary := wanted.get((stage, name))) is not None:
            last, best = found.get((stage, name), (None, None))
            if _is_value(summary.last, position.value):
                last = position
            if best is None and summary.best_at in (None, position.epoch) and summary.best == position.value:
                best = position
            found[stage, name] = last, best
    return {each.label: _build_value(each, *found.get(key, (None, None))) for key, each in wanted.items()}


def _is_value(recorded: float | None, value: float) -> bool:
    """Whether a value is the recorded one; one that is not finite is recorded as None."""
    return not math.isfinite(value) if recorded is None else value == recorded


def _build_value(summary: MetricSummary, last: _Position | None, best: _Position | None) -> MetricValue:
    return MetricValue(
        **dict(summary),
        last_at=last.epoch if last else None,
        last_step=last.step if last else None,
        best_step=best.step if best else None,
    )


def _iter_positions(execution: WithMetrics) -> Iterator[tuple[str, str, _Position]]:
    """Yield the values in the journal and then those in the metrics file, with stage and name.

    Either may not be available, since it is not uploaded yet or the store cannot be reached.
    """
    for read in (_iter_reported, _iter_logged):
        try:
            yield from read(execution)
        except (DerivaMLException, OSError):
            log.debug("Failed to read where the values of the metrics are.", exc_info=True)


def _iter_reported(execution: WithMetrics) -> Iterator[tuple[str, str, _Position]]:
    for update in execution._load_state().statuses:
        if (progress := update.progress) is not None:
            for name, value in progress.metrics.items():
                yield progress.stage, name, _Position(value, progress.epoch, progress.step)


def _iter_logged(execution: WithMetrics) -> Iterator[tuple[str, str, _Position]]:
    with _open_metrics_file(execution) as file:
        for line in iter_values(file, "epoch") if file else ():
            for name, value in line.values.items():
                yield line.stage, name, _Position(value, line.epoch, line.step)


@contextmanager
def _open_metrics_file(execution: WithMetrics) -> Iterator[Path | None]:
    """Yield the metrics file in the working folder, or else a copy in the cache; None if there is none."""
    local = execution.working_dir / METRICS_FILE
    if os.access(local, os.R_OK):
        yield local
        return
    outputs = execution.list_assets(Role.output)
    matching = select_metadata_assets(execution, outputs, METRICS_FILE, METRICS_TYPES)
    if not matching:
        yield None
        return
    try:
        cached = cache_asset(execution._connection, matching[-1])
    except CatalogReadOnly:  # another user's catalog
        with scratch_folder(execution._connection.folder) as folder:
            yield download_asset(execution._connection, matching[-1], folder)
        return
    yield cached
