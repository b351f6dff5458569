"""``deriva-ml-run-notebook``: a notebook run from the command line, as an execution."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperCommand
from typer.main import get_command

from deriva_ml_core._text import sanitize_line
from deriva_ml_core.errors import DerivaMLException

if TYPE_CHECKING:
    from deriva_ml_core.runner.notebook.notebook_file import Notebook
    from deriva_ml_core.runner.notebook.record import NotebookRunResult

__all__ = [
    "CatalogNumber",
    "ConfigFolder",
    "Description",
    "Host",
    "Inspect",
    "KernelName",
    "LogOutput",
    "NotebookFile",
    "Overrides",
    "ParameterPairs",
    "ParametersFile",
    "WorkflowType",
    "WorkingFolder",
    "build_command",
    "enable_value_pairs",
    "main",
]


EXIT_FAILED, EXIT_USAGE = 1, 2

USAGE_ERRORS = ("ConfigurationError", "InvalidRID", "UnknownAddress", "UnknownRID", "UnknownTerm", "WrongTable")
"""The mistakes that are the caller's."""

EXAMPLES = (
    "deriva-ml-run-notebook digits.ipynb",
    "deriva-ml-run-notebook digits.ipynb -p epochs 10 -p rate 0.01",
    "deriva-ml-run-notebook digits.ipynb -f parameters.yaml --kernel python3",
    "deriva-ml-run-notebook digits.ipynb --inspect",
    "deriva-ml-run-notebook roc.ipynb assets=last_runs deriva_ml=production",
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n\n".join(("Examples:", *(f"  {example}" for example in EXAMPLES))),
)
def _run_notebook(
    notebook: NotebookFile,
    overrides: Overrides = None,
    parameter: ParameterPairs = None,
    file: ParametersFile = None,
    kernel: KernelName = None,
    inspect: Inspect = False,
    log_output: LogOutput = False,
    description: Description = "",
    workflow_type: WorkflowType = None,
    cwd: WorkingFolder = None,
    host: Host = None,
    catalog: CatalogNumber = None,
    config_dir: ConfigFolder = None,
) -> None:
    """Run a notebook, and record it as an execution with the notebook as it was executed.

    Where its cells make an execution, that one is meant; where they make none, one is made. The workflow is the
    notebook. When a cell fails the execution is Failed, and what was executed so far is kept. Exit codes: 0 the
    notebook ran and is recorded; 1 it failed, or could not be recorded; 2 wrong use.
    """
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.runner.notebook.notebook_file import read_notebook
    from deriva_ml_core.runner.notebook.parameters import resolve_parameters
    from deriva_ml_core.runner.notebook.record import NotebookRun, run_and_record

    with _exit_on_error():
        document = read_notebook(notebook, kernel)
        if inspect:
            _print_parameters(document)
            return
        run = NotebookRun(
            notebook=document,
            parameters=resolve_parameters(document, parameter or (), file, {"host": host, "catalog": catalog}),
            cwd=_resolve_cwd(cwd or document.path.parent),
            command=_redact_command(sys.argv),
            overrides=_add_catalog_overrides(document, overrides or (), host, catalog),
            config_folder=_resolve_config_folder(document, config_dir),
            description=description,
            workflow_type=workflow_type,
            show_output=log_output,
        )
        with DerivaML(host, catalog) as ml:
            _report_result(run_and_record(ml, run))


def _resolve_cwd(path: Path) -> Path:
    from deriva_ml_core.errors import ConfigurationError

    if not path.is_dir():
        raise ConfigurationError(f"{path} is no folder for the notebook to work in: name one with --cwd.")
    return path.absolute()


def _add_catalog_overrides(
    document: Notebook, overrides: Sequence[str], host: str | None, catalog: str | None
) -> list[str]:
    """The overrides with the catalog's address among them, for a notebook that has a configuration."""
    from deriva_ml_core.runner.hydra_files import quote_override_value

    if not document.has_configuration:
        _reject_overrides(document, overrides)
        return []
    address = {"hostname": host, "catalog_id": catalog}
    return [
        *overrides,
        *(f"deriva_ml.{key}={quote_override_value(value)}" for key, value in address.items() if value is not None),
    ]


def _resolve_config_folder(document: Notebook, folder: Path | None) -> Path | None:
    from deriva_ml_core.runner.configs import find_config_folder

    if folder is None:
        return None
    if not document.has_configuration:
        _reject_overrides(document, ["--config-dir"])
    return find_config_folder(folder)


def _reject_overrides(document: Notebook, options: Sequence[str]) -> None:
    from deriva_ml_core.errors import ConfigurationError

    if options:
        raise ConfigurationError(
            f"{document.path.name} has no configuration that {', '.join(options)} could change: none of its cells "
            f"calls "
            "run_notebook(). Parameters are given with -p NAME VALUE."
        )


def _redact_command(command: Sequence[str]) -> list[str]:
    """The command line as it may be recorded: a parameter named like a secret loses its value."""
    from deriva_ml_core.redaction import is_secret_name, redact

    words = list(command)
    for place, (option, word) in enumerate(pairwise(words[:-1]), start=2):
        name = word if option in ("-p", "--parameter") else _parse_parameter_name(word)
        if name and is_secret_name(name):
            words[place] = f"[redacted: {name}]"
    shown = redact(list(words))
    return [str(word) for word in shown] if isinstance(shown, list) else words


def _parse_parameter_name(word: str) -> str:
    """The parameter that one word names together with its option: ``-pNAME`` and ``--parameter=NAME``."""
    option, _, name = word.partition("=")
    return name if option == "--parameter" else word[2:] if word.startswith("-p") else ""


def _print_parameters(document: Notebook) -> None:
    from deriva_ml_core.runner.notebook.parameters import PARAMETERS_TAG, find_parameters

    found = find_parameters(document)
    if found is None:
        typer.echo(f"{document.path.name} takes no parameters: none of its cells has the tag {PARAMETERS_TAG!r}.")
        return
    rows = [(each.name, each.kind, each.default, each.help) for each in found.values()]
    rows = [("Parameter", "Type", "Default", ""), *rows]
    widths = [max(len(sanitize_line(row[column])) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo(
            "  ".join(sanitize_line(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _report_result(recorded: NotebookRunResult) -> None:
    for execution in recorded.executions:
        typer.echo(f"{execution.execution_rid}  {execution.status}  {sanitize_line(execution.url)}")
    if not recorded.executions:
        typer.echo("The notebook made a dry run, so nothing is recorded.")
    if recorded.error is not None:
        _exit_with_error(recorded.error)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Say an error of ours, or of the disk, in one line, and end."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (DerivaMLException, OSError) as error:
        _exit_with_error(error)


def _exit_with_error(error: BaseException) -> NoReturn:
    if not isinstance(error, Exception):  # Ctrl-C and SIGTERM end this process as they end any other
        raise error
    for words in (f"error: {error}", *getattr(error, "__notes__", ())):
        typer.echo(sanitize_line(words), err=True)
    raise typer.Exit(EXIT_USAGE if type(error).__name__ in USAGE_ERRORS else EXIT_FAILED)


def build_command() -> TyperCommand:
    """The command itself, as click knows it."""
    return enable_value_pairs(cast("TyperCommand", get_command(app)))


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show ends nothing
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would log of a cell's error is said here
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    build_command()()


def _show_warning(message: object, category: type[Warning], *_: object, line: str | None = None) -> None:  # noqa: ARG001
    if category.__name__ == "DerivaMLWarning":
        typer.echo(f"warning: {sanitize_line(message)}", err=True)


def _keep_value(words: Any) -> Any:
    return words


def enable_value_pairs(command: TyperCommand) -> TyperCommand:
    """A command whose option ``-p`` takes two words, any number of times, which typer has no type for."""
    for option in command.params:
        if option.name == "parameter":
            option.nargs = 2
    return command


NotebookFile = Annotated[Path, typer.Argument(metavar="NOTEBOOK.ipynb", help="The notebook.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="Of hydra, such as assets=last_runs, for the notebook."),
]
ParameterPairs = Annotated[
    list[Any] | None,
    typer.Option("--parameter", "-p", metavar="NAME VALUE", parser=_keep_value, help="A parameter of the notebook."),
]
ParametersFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="Parameters as JSON or YAML; -p stands above them."),
]
KernelName = Annotated[
    str | None, typer.Option("--kernel", "-k", metavar="NAME", help="The kernel, instead of the notebook's own.")
]
Inspect = Annotated[bool, typer.Option("--inspect", help="List the notebook's parameters, and run nothing.")]
LogOutput = Annotated[bool, typer.Option("--log-output", help="Show what the cells print as they do.")]
Description = Annotated[
    str, typer.Option(metavar="TEXT", help="What the run is for, where the notebook does not say.", show_default=False)
]
WorkflowType = Annotated[
    str | None,
    typer.Option(metavar="TERM", help="The notebook's type in the catalog; that which it has there, else Evaluation."),
]
WorkingFolder = Annotated[
    Path | None, typer.Option("--cwd", metavar="FOLDER", help="Where the kernel works; by default beside the notebook.")
]
Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="A server, or file:<folder>; fills the parameter host, if there is one."),
]
CatalogNumber = Annotated[
    str | None, typer.Option(metavar="ID", help="The catalog's number there; fills the parameter catalog.")
]
ConfigFolder = Annotated[
    Path | None, typer.Option("--config-dir", metavar="FOLDER", help="Where the configs are that overrides speak of.")
]
