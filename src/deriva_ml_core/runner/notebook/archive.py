"""Upload an executed notebook: as a notebook file and as an HTML page, both without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from deriva_ml_core.definitions import MLAsset, MLVocab
from deriva_ml_core.errors import NotebookFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.redaction import is_secret_name, redact, redact_text
from deriva_ml_core.runner.notebook.execute import INJECTED_PARAMETERS_TAG
from deriva_ml_core.runner.notebook.notebook_file import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["render_html", "render_ipynb", "upload_notebook", "redact_notebook", "redact_error"]

log = logging.getLogger(__name__)

NOTEBOOK_OUTPUT = "Notebook_Output"

MIN_SECRET_LENGTH = 4
"""Shortest secret, in characters, that is searched for in the outputs of cells."""

# the page executes and fetches nothing, whatever the cells' outputs contain
_CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
_STYLE = """
body { max-width: 60em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 system-ui, sans-serif; color: #222; }
pre { overflow-x: auto; margin: 0; padding: .5em .8em; font-size: 14px; line-height: 1.4; }
.input_area { background: #f6f7f9; border-left: 3px solid #4a78b5; margin-top: 1em; }
.output_stderr { background: #fdecea; }
.prompt { color: #888; font: 12px monospace; }
img { max-width: 100%; }
table { border-collapse: collapse; font-size: 14px; }
td, th { border: 1px solid #ddd; padding: .2em .6em; text-align: right; }
"""


def redact_notebook(executed: NotebookNode, notebook: Notebook, parameters: Mapping[str, JsonValue]) -> NotebookNode:
    """Return a copy of an executed notebook without secrets.

    Removed are the values of secret parameters, wherever they were printed, and texts that have the form of a secret.
    The paths that papermill recorded are reduced to file names.

    Args:
        executed: The executed notebook.
        notebook: The notebook before it ran.
        parameters: The values of its parameters.
    """
    import nbformat

    redacted = redact(dict(parameters))
    copy: Any = nbformat.from_dict(_redact_value(executed, _sorted_secrets(parameters)))  # type: ignore[no-untyped-call]
    for cell in copy.cells:
        if INJECTED_PARAMETERS_TAG in cell.metadata.get("tags", []):
            cell.source = _render_parameters(notebook, redacted if isinstance(redacted, dict) else {})
    metadata = copy.metadata.get("papermill", {})
    if metadata:
        metadata["parameters"] = redacted
        metadata["input_path"] = metadata["output_path"] = notebook.path.name
    return copy  # type: ignore[no-any-return]


def redact_error(error: BaseException | None, parameters: Mapping[str, JsonValue]) -> BaseException | None:
    """Return the error of a notebook with the values of secret parameters removed from its message."""
    secrets = _sorted_secrets(parameters)
    if not isinstance(error, NotebookFailed) or not any(secret in str(error) for secret in secrets):
        return error
    return NotebookFailed(_redact_value(str(error), secrets))


def _sorted_secrets(parameters: Mapping[str, JsonValue]) -> list[str]:
    return sorted({*_iter_secrets(parameters)}, key=len, reverse=True)


def _iter_secrets(value: JsonValue | Mapping[str, JsonValue], name: str = "") -> Iterator[str]:
    """Yield the values whose names mark them as secrets."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _iter_secrets(part, key if is_secret_name(key) else name)
    elif isinstance(value, list):
        for part in value:
            yield from _iter_secrets(part, name)
    elif name and not isinstance(value, bool) and value is not None and len(str(value)) >= MIN_SECRET_LENGTH:
        yield str(value)


def _redact_value(value: Any, secrets: list[str], kind: str = "") -> Any:
    """Redact a part of a notebook; binary contents such as images are left unchanged.

    Args:
        value: The part.
        secrets: Values that are removed wherever they are.
        kind: The media type of an output, or "code" for the source of a cell.
    """
    if isinstance(value, Mapping):
        is_code = value.get("cell_type") == "code"
        return {
            name: _redact_value(
                part, secrets, "code" if is_code and name == "source" else name if "/" in name else kind
            )
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_redact_value(part, secrets, kind) for part in value]
    if not isinstance(value, str) or kind.startswith(("image/png", "image/jpeg", "application/pdf")):
        return value
    for secret in secrets:
        value = value.replace(secret, "[redacted]")
    return redact_text(value, "code" if kind == "code" else "text")


def _render_parameters(notebook: Notebook, parameters: Mapping[str, Any]) -> str:
    from papermill.translators import translate_parameters  # type: ignore[import-untyped]

    language, name = notebook.kernel.language, notebook.kernel.name
    return str(translate_parameters(name, language, dict(parameters), "Parameters"))


def upload_notebook(execution: Execution, executed: NotebookNode, file: Path) -> None:
    """Register an executed notebook and its HTML page as outputs of type Notebook_Output, and upload all staged files.

    Args:
        execution: The execution, which has ended.
        executed: The executed notebook, without secrets.
        file: The notebook's file; the outputs are named after it.

    Raises:
        UploadFailed: Some files could not be uploaded; they stay staged.
    """
    texts = {file.name: render_ipynb(executed)}
    try:
        texts[f"{file.stem}.html"] = render_html(executed, file.stem)
    except Exception:  # outputs of cells may contain anything, and nbconvert may fail on it
        log.warning("%s could not be converted to HTML.", file.name, exc_info=True)
    terms = execution._connection.terms.cached_terms(MLVocab.asset_type)
    asset_types = [NOTEBOOK_OUTPUT] if NOTEBOOK_OUTPUT in terms else None
    for name, text in texts.items():
        _stage_output(execution, name, asset_types).write_text(text, encoding="utf-8")
    execution.upload_execution_outputs()


def _stage_output(execution: Execution, name: str, asset_types: list[str] | None) -> Path:
    taken = {asset.filename for asset in execution.staged_assets() if asset.table == MLAsset.execution_asset}
    free = f"executed/{name}" if name in taken else name  # a cell may have registered a file of this name
    return execution.asset_file_path(MLAsset.execution_asset, free, asset_types=asset_types)


def render_ipynb(executed: NotebookNode) -> str:
    """Return a notebook in Jupyter's file format."""
    import nbformat

    return str(nbformat.writes(executed)) + "\n"  # type: ignore[no-untyped-call]


def render_html(executed: NotebookNode, title: str) -> str:
    """Return a notebook as one HTML page with embedded images, which executes and fetches nothing.

    Args:
        executed: The executed notebook.
        title: The title of the page.
    """
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    exporter = HTMLExporter(template_name="basic", embed_images=True)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(executed)
    style = _STYLE + HtmlFormatter().get_style_defs(".highlight")
    return (
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_SECURITY_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
