"""Values that can be logged as images, figures and tables: how they are copied, and encoded as PNG, SVG and CSV.

The copy is taken in the thread of the training, which may change the value afterwards. The copy is encoded in the
background. numpy, torch, Pillow, matplotlib and pandas are used only if the program has imported them.
"""

from __future__ import annotations

import csv
import io
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from deriva_ml_core.media.png import encode_png

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FigureFormat", "MediaCopy", "MediaSource", "figure_source", "image_source", "table_source"]

FigureFormat = Literal["png", "svg"]

CELL_BYTES = 64
"""Estimated bytes of a table's cell that is a Python object."""

FIGURE_BYTES = 2**20
"""Estimated bytes of a figure before it is copied."""

PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
"""The modes of Pillow that its PNG writer takes."""


@dataclass(frozen=True, slots=True)
class MediaCopy:
    """A copy of a logged value.

    Args:
        nbytes: Its size in bytes.
        encode: Function that returns the content of the file.
    """

    nbytes: int
    encode: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class MediaSource:
    """A value to log.

    Args:
        suffix: Suffix of the file: ``.png``, ``.svg`` or ``.csv``.
        nbytes: Estimated size of its copy in bytes.
        copy: Function that copies it.
    """

    suffix: str
    nbytes: int
    copy: Callable[[], MediaCopy]


# Images


def image_source(image: object) -> MediaSource:
    """Return an image to log; see ``MediaLogger.log_image``.

    Raises:
        ValueError: The value is no image; the message says what it is.
    """
    pillow, torch = sys.modules.get("PIL.Image"), sys.modules.get("torch")
    if pillow is not None and isinstance(image, pillow.Image):
        return _pillow_source(image)
    if _find_figure(image) is not None:
        return figure_source(image, "png")
    if torch is not None and isinstance(image, torch.Tensor):
        return _tensor_source(image)
    return _array_source(image)


def _pillow_source(image: Any) -> MediaSource:
    nbytes = image.width * image.height * len(image.getbands())

    def copy() -> MediaCopy:
        copied = image.copy()

        def encode() -> bytes:
            buffer = io.BytesIO()
            (copied if copied.mode in PNG_MODES else copied.convert("RGB")).save(buffer, "PNG")
            return buffer.getvalue()

        return MediaCopy(nbytes, encode)

    return MediaSource(".png", nbytes, copy)


def _tensor_source(tensor: Any) -> MediaSource:
    is_first = _has_channels_first(tuple(tensor.shape), is_usual=True)
    nbytes = tensor.numel() * tensor.element_size()

    def copy() -> MediaCopy:
        copied = tensor.detach().to("cpu", copy=True)
        if copied.is_floating_point():
            copied = copied.float()  # numpy has no bfloat16
        return MediaCopy(nbytes, lambda: _encode_array(copied.numpy(), channels_first=is_first))

    return MediaSource(".png", nbytes, copy)


def _array_source(image: object) -> MediaSource:
    array = _to_array(image)
    is_first = _has_channels_first(array.shape, is_usual=False)
    if array.dtype.kind not in "buif":
        raise ValueError(f"an image of {array.dtype} values; use numbers or bools")

    def copy() -> MediaCopy:
        copied = array.copy() if hasattr(image, "__array__") else array  # a list is copied already
        return MediaCopy(copied.nbytes, lambda: _encode_array(copied, channels_first=is_first))

    return MediaSource(".png", array.nbytes, copy)


def _to_array(value: object) -> NDArray[Any]:
    if not hasattr(value, "__array__") and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise ValueError(
            f"a value of the type {type(value).__name__}; use a numpy array, a torch tensor, or an image of Pillow"
        )
    try:
        import numpy as np
    except ImportError as error:
        raise ValueError("an array, which needs numpy: pip install numpy") from error
    return np.asarray(value)


def _has_channels_first(shape: tuple[int, ...], *, is_usual: bool) -> bool:
    """Whether the first axis of an image is the channels.

    Args:
        shape: The shape of the image.
        is_usual: Whether channels are usually the first axis, as in torch; this decides if both axes can be it.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"an image of the shape {shape}; use (height, width), (height, width, channels) or "
            "(channels, height, width), with 1 to 4 channels"
        )
    if len(shape) == 2:
        return False
    can_be_first, can_be_last = shape[0] <= 4, shape[-1] <= 4
    if not can_be_first and not can_be_last:
        raise ValueError(f"an image of the shape {shape}; the first or the last axis has 1 to 4 channels")
    return can_be_first and (is_usual or not can_be_last)


def _encode_array(array: NDArray[Any], *, channels_first: bool) -> bytes:
    import numpy as np

    if array.ndim == 2:
        array = array[:, :, None]
    return encode_png(_to_bytes(np.moveaxis(array, 0, -1) if channels_first else array))


def _to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values from 0 to 255; values outside of their type's usual range are scaled to it."""
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    values: NDArray[np.floating] = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    top = 1.0 if array.dtype.kind == "f" else 255.0
    if low >= 0 and high <= top:
        low, high = 0.0, top
    with np.errstate(all="ignore"):  # the range of finite values may be infinite, or none
        scaled = (values / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    shades: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 1.0) * 255).astype(np.uint8)
    return shades


# Figures


def figure_source(value: object, file_format: FigureFormat) -> MediaSource:
    """Return a figure to log; see ``MediaLogger.log_figure``.

    Raises:
        ValueError: The value is no figure of matplotlib, or the format is unknown.
    """
    if file_format not in get_args(FigureFormat):
        raise ValueError(f"a figure with format={file_format!r}; use {' or '.join(map(repr, get_args(FigureFormat)))}")
    figure = _find_figure(value)
    if figure is None:
        raise ValueError(f"a value of the type {type(value).__name__}; use a figure of matplotlib")
    return MediaSource(f".{file_format}", FIGURE_BYTES, lambda: _copy_figure(figure, file_format))


def _find_figure(value: object) -> Any:
    """Return a figure of matplotlib, also from its axes or from a grid of seaborn; None for other values."""
    module = sys.modules.get("matplotlib.figure")
    if module is None:
        return None
    figure = value if isinstance(value, module.Figure) else getattr(value, "figure", None)
    return figure if isinstance(figure, module.Figure) else None


def _copy_figure(figure: Any, file_format: FigureFormat) -> MediaCopy:
    buffer = io.BytesIO()
    try:
        _FigurePickler(buffer, figure).dump(figure)
    except Exception:  # noqa: BLE001 - a function of the user, for example, cannot be pickled
        content = _draw_figure(figure, file_format)
        return MediaCopy(len(content), lambda: content)
    pickled = buffer.getvalue()
    # what this process has just pickled itself
    return MediaCopy(len(pickled), lambda: _draw_figure(pickle.loads(pickled), file_format))  # noqa: S301


class _FigurePickler(pickle.Pickler):
    """Pickles a figure without its place among the windows of pyplot, since a background thread must open none."""

    def __init__(self, file: io.BytesIO, figure: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._figure = figure

    def reducer_override(self, obj: Any) -> Any:
        if obj is not self._figure:
            return NotImplemented
        create, arguments, state, *rest = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return create, arguments, {**state, "_restore_to_pylab": False}, *rest


def _draw_figure(figure: Any, file_format: FigureFormat) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format)
    return buffer.getvalue()


# Tables


def table_source(table: object) -> MediaSource:
    """Return a table to log; see ``MediaLogger.log_table``.

    Raises:
        ValueError: The value is no table; the message says what it is.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.Series | pandas.DataFrame):
        return _frame_source(table.to_frame() if isinstance(table, pandas.Series) else table, pandas)
    if isinstance(table, Mapping):
        return _columns_source(table)
    if isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        return _rows_source(table)
    if hasattr(table, "__array__"):
        array = _to_array(table.detach().cpu() if hasattr(table, "detach") else table)
        if array.ndim == 2:
            return MediaSource(".csv", array.nbytes, lambda: _copy_rows([], array.tolist()))
        raise ValueError(f"a table of the shape {array.shape}; use (rows, columns)")
    raise ValueError(
        f"a value of the type {type(table).__name__}; use a DataFrame, a list of dicts, a dict of columns, or an array "
        "of two axes"
    )


def _frame_source(frame: Any, pandas: Any) -> MediaSource:
    def copy() -> MediaCopy:
        copied = frame.copy()
        has_index = not isinstance(copied.index, pandas.RangeIndex)
        return MediaCopy(nbytes, lambda: str(copied.to_csv(index=has_index)).encode("utf-8", "backslashreplace"))

    nbytes = int(frame.memory_usage(deep=False).sum())
    return MediaSource(".csv", nbytes, copy)


def _columns_source(columns: Mapping[Any, Any]) -> MediaSource:
    if not all(hasattr(column, "__len__") and not isinstance(column, str | bytes) for column in columns.values()):
        raise ValueError("a dict whose values are no columns; use lists or arrays of the same length")
    length = max(map(len, columns.values()), default=0)

    def copy() -> MediaCopy:
        lists = [column.tolist() if hasattr(column, "tolist") else list(column) for column in columns.values()]
        rows = [[column[place] if place < len(column) else "" for column in lists] for place in range(length)]
        return _copy_rows([*columns], rows)

    return MediaSource(".csv", length * len(columns) * CELL_BYTES, copy)


def _rows_source(rows: Sequence[Mapping[Any, Any]]) -> MediaSource:
    def copy() -> MediaCopy:
        names = list(dict.fromkeys(name for row in rows for name in row))
        return _copy_rows(names, [[row.get(name, "") for name in names] for row in rows])

    return MediaSource(".csv", sum(map(len, rows)) * CELL_BYTES, copy)


def _copy_rows(header: list[Any], rows: list[list[Any]]) -> MediaCopy:
    def encode() -> bytes:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([header, *rows] if header else rows)
        return buffer.getvalue().encode("utf-8", "backslashreplace")

    return MediaCopy(sum(map(len, rows)) * CELL_BYTES, encode)
