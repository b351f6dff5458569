"""`MediaLogger`, the methods that log images, figures and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from deriva_ml_core.media.encoders import FigureFormat, MediaSource, figure_source, image_source, table_source
from deriva_ml_core.models import MediaKind

__all__ = ["LoggedMedia", "MediaLogger"]


@dataclass(frozen=True, slots=True)
class LoggedMedia:
    """One call that logs an image, a figure or a table.

    Args:
        kind: ``image``, ``figure`` or ``table``.
        name: Its name.
        get_source: Function that checks the value.
        step: Optimizer steps so far; None if unknown.
        epoch: Number of the epoch, from 1; None if unknown.
        fit: Number of the fit; None outside of a fit.
    """

    kind: MediaKind
    name: object
    get_source: Callable[[], MediaSource]
    step: object = None
    epoch: object = None
    fit: int | None = None

    def with_defaults(self, *, step: int | None = None, epoch: int | None = None) -> LoggedMedia:
        """Return the call with a step and an epoch where it has none."""
        return replace(
            self,
            step=step if self.step is None else self.step,
            epoch=epoch if self.epoch is None else self.epoch,
        )


class MediaLogger:
    """Logs images, figures and tables of a run.

    A call takes a copy of the value and returns. A background thread encodes the copy and writes it to a file, which is
    uploaded with the run's other files. A failure is logged as a warning and never ends the run. At most 64 values wait
    at a time, with 256 MiB in all; while the queue is full, further values are dropped. A run keeps 1,000 values at
    most, or what the option ``max_media`` of the training says. A warning at the end of the run counts what was left
    out.
    """

    def log_image(self, name: str, image: object, step: int | None = None, *, epoch: int | None = None) -> None:
        """Log an image, which becomes a PNG file.

        Args:
            name: Its name; images of the same name are shown one after the other.
            image: A numpy array, a torch tensor or another array, of the shape (height, width), (height, width,
                channels) or (channels, height, width); or an image of Pillow. One channel is grey, two are grey with
                alpha, three are RGB, four are RGB with alpha. Integers from 0 to 255 and floats from 0 to 1 are
                colours; an array with other values is scaled so that its smallest is black and its largest white.
            step: Optimizer steps since training began. By default a callback fills it in.
            epoch: Number of the epoch, from 1. By default a callback fills it in.
        """
        self._log_media(LoggedMedia("image", name, partial(image_source, image), step, epoch))

    def log_figure(
        self,
        name: str,
        figure: object,
        step: int | None = None,
        *,
        epoch: int | None = None,
        format: FigureFormat = "png",  # noqa: A002 - the name that matplotlib has
    ) -> None:
        """Log a figure of matplotlib, which becomes a PNG or SVG file. It may be closed or changed after the call.

        Args:
            name: Its name; figures of the same name are shown one after the other.
            figure: The figure, or axes of it.
            step: Optimizer steps since training began. By default a callback fills it in.
            epoch: Number of the epoch, from 1. By default a callback fills it in.
            format: ``"png"`` or ``"svg"``.
        """
        self._log_media(LoggedMedia("figure", name, partial(figure_source, figure, format), step, epoch))

    def log_table(self, name: str, table: object, step: int | None = None, *, epoch: int | None = None) -> None:
        """Log a table, which becomes a CSV file.

        Args:
            name: Its name; tables of the same name are shown one after the other.
            table: A DataFrame of pandas, a list of dicts, a dict of columns, or an array of two axes.
            step: Optimizer steps since training began. By default a callback fills it in.
            epoch: Number of the epoch, from 1. By default a callback fills it in.
        """
        self._log_media(LoggedMedia("table", name, partial(table_source, table), step, epoch))

    def _log_media(self, media: LoggedMedia) -> None:
        raise NotImplementedError
