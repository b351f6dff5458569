"""A notebook as it was executed, made fit to be kept: without secrets, and as a page that any browser shows."""

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
"""Letters that a secret must have to be looked for in what the cells printed."""

# nothing on the page is executed or fetched, whatever a cell has put out
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
    """An executed notebook without secrets: those among its parameters, wherever they were printed, and known forms.

    Args:
        executed: The notebook.
        notebook: As it was before it ran.
        parameters: What its parameters were given.

    Returns:
        A copy, in which paths of this machine are also no more than file names.
    """
    import nbformat

    shown = redact(dict(parameters))
    copy: Any = nbformat.from_dict(_redact_value(executed, _sorted_secrets(parameters)))  # type: ignore[no-untyped-call]
    for cell in copy.cells:
        if INJECTED_PARAMETERS_TAG in cell.metadata.get("tags", []):
            cell.source = _render_parameters(notebook, shown if isinstance(shown, dict) else {})
    about = copy.metadata.get("papermill", {})
    if about:
        about["parameters"] = shown
        about["input_path"] = about["output_path"] = notebook.path.name
    return copy  # type: ignore[no-any-return]


def redact_error(error: BaseException | None, parameters: Mapping[str, JsonValue]) -> BaseException | None:
    """What ended a notebook, without the secrets among its parameters in its words."""
    secrets = _sorted_secrets(parameters)
    if not isinstance(error, NotebookFailed) or not any(secret in str(error) for secret in secrets):
        return error
    return NotebookFailed(_redact_value(str(error), secrets))


def _sorted_secrets(parameters: Mapping[str, JsonValue]) -> list[str]:
    return sorted({*_iter_secrets(parameters)}, key=len, reverse=True)


def _iter_secrets(value: JsonValue | Mapping[str, JsonValue], name: str = "") -> Iterator[str]:
    """The texts under names of secrets."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _iter_secrets(part, key if is_secret_name(key) else name)
    elif isinstance(value, list):
        for part in value:
            yield from _iter_secrets(part, name)
    elif name and not isinstance(value, bool) and value is not None and len(str(value)) >= MIN_SECRET_LENGTH:
        yield str(value)


def _redact_value(value: Any, secrets: list[str], kind: str = "") -> Any:
    """A part of a notebook; what is no text, an image say, is left as it is."""
    if isinstance(value, Mapping):
        return {name: _redact_value(part, secrets, name if "/" in name else kind) for name, part in value.items()}
    if isinstance(value, list):
        return [_redact_value(part, secrets, kind) for part in value]
    if not isinstance(value, str) or kind.startswith(("image/png", "image/jpeg", "application/pdf")):
        return value
    for secret in secrets:
        value = value.replace(secret, "[redacted]")
    return redact_text(value)


def _render_parameters(notebook: Notebook, parameters: Mapping[str, Any]) -> str:
    from papermill.translators import translate_parameters  # type: ignore[import-untyped]

    language, name = notebook.kernel.language, notebook.kernel.name
    return str(translate_parameters(name, language, dict(parameters), "Parameters"))


def upload_notebook(execution: Execution, executed: NotebookNode, file: Path) -> None:
    """Register an executed notebook and its page as outputs of type Notebook_Output, and upload all that is staged.

    Args:
        execution: Whose outputs they are; it has ended.
        executed: The notebook, without secrets.
        file: Where it was before it ran: the outputs have its name.

    Raises:
        UploadFailed: Something could not be sent, and stays staged.
    """
    texts = {file.name: render_ipynb(executed)}
    try:
        texts[f"{file.stem}.html"] = render_html(executed, file.stem)
    except Exception:  # what a cell has put out may be anything
        log.warning("No page could be made of %s.", file.name, exc_info=True)
    known = execution._connection.terms.cached_terms(MLVocab.asset_type)
    types = [NOTEBOOK_OUTPUT] if NOTEBOOK_OUTPUT in known else None
    for name, text in texts.items():
        _stage_output(execution, name, types).write_text(text, encoding="utf-8")
    execution.upload_execution_outputs()


def _stage_output(execution: Execution, name: str, types: list[str] | None) -> Path:
    taken = {asset.filename for asset in execution.staged_assets() if asset.table == MLAsset.execution_asset}
    free = f"executed/{name}" if name in taken else name  # a cell may have registered a file of its own by that name
    return execution.asset_file_path(MLAsset.execution_asset, free, asset_types=types)


def render_ipynb(executed: NotebookNode) -> str:
    """A notebook as Jupyter's own format."""
    import nbformat

    return str(nbformat.writes(executed)) + "\n"  # type: ignore[no-untyped-call]


def render_html(executed: NotebookNode, title: str) -> str:
    """A notebook as one page of HTML, images in it, that asks for nothing from anywhere and executes nothing.

    Args:
        executed: The notebook.
        title: The page's title.
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
