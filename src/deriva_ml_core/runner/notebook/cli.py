"""``deriva-ml-run-notebook``: run a notebook as an execution."""

from __future__ import annotations

import logging
import re
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

from deriva_ml_core._progress import replace_missing_streams
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
"""Names of the errors that count as wrong usage."""

HELP = "\n\n".join(  # each paragraph is one line, which Typer wraps to the width of the terminal
    (
        "Run a notebook and record it as an execution, with the executed notebook as output.",
        "If the notebook's cells create an execution, that one is used; otherwise one is created. The workflow is the "
        "notebook. If a cell fails, the execution is Failed, and the notebook is kept as far as it ran.",
        "Exit codes: 0 success; 1 the notebook failed or could not be recorded; 2 usage error.",
    )
)

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
    help=HELP,
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
    """Run a notebook and record it as an execution."""
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
    from deriva_ml_core.paths import to_absolute_path

    if not path.is_dir():
        raise ConfigurationError(f"The working folder {path} does not exist. Pass an existing one with --cwd.")
    return to_absolute_path(path)


def _add_catalog_overrides(
    document: Notebook, overrides: Sequence[str], host: str | None, catalog: str | None
) -> list[str]:
    """Return the overrides, with the catalog's address added, for a notebook that has a configuration."""
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
            f"{document.path.name} has no configuration to apply {', '.join(options)} to: none of its cells calls "
            "run_notebook(). Set parameters with -p NAME VALUE."
        )


def _redact_command(command: Sequence[str]) -> list[str]:
    """Return the command line with the values of secret parameters redacted."""
    from deriva_ml_core.redaction import is_secret_name, redact

    arguments = list(command)
    for index, (option, argument) in enumerate(pairwise(arguments[:-1]), start=2):
        name = argument if option in ("-p", "--parameter") else _parse_parameter_name(argument)
        if name and is_secret_name(name):
            arguments[index] = f"[redacted: {name}]"
    redacted = redact(list(arguments))
    return [str(argument) for argument in redacted] if isinstance(redacted, list) else arguments


def _parse_parameter_name(argument: str) -> str:
    """Return the parameter name in ``-pNAME`` or ``--parameter=NAME``; empty for any other argument."""
    option, _, name = argument.partition("=")
    return name if option == "--parameter" else argument[2:] if argument.startswith("-p") else ""


def _print_parameters(document: Notebook) -> None:
    from deriva_ml_core.runner.notebook.parameters import PARAMETERS_TAG, find_parameters

    parameters = find_parameters(document)
    if parameters is None:
        typer.echo(f"{document.path.name} has no parameters: none of its cells has the tag {PARAMETERS_TAG!r}.")
        return
    rows = [(each.name, each.kind, each.default, each.help) for each in parameters.values()]
    rows = [("Parameter", "Type", "Default", ""), *rows]
    widths = [max(len(sanitize_line(row[column])) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo(
            "  ".join(sanitize_line(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _report_result(result: NotebookRunResult) -> None:
    for execution in result.executions:
        typer.echo(f"{execution.execution_rid}  {execution.status}  {sanitize_line(execution.url)}")
    if not result.executions:
        typer.echo("The notebook's execution was a dry run: nothing is recorded.")
    if result.error is not None:
        _exit_with_error(result.error)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Print an error of this package or the operating system without a traceback, and exit."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (DerivaMLException, OSError) as error:
        _exit_with_error(error)


def _exit_with_error(error: BaseException) -> NoReturn:
    if not isinstance(error, Exception):  # Ctrl-C and SIGTERM end this process as usual
        raise error
    for message in (f"error: {error}", *getattr(error, "__notes__", ())):
        typer.echo(sanitize_line(message), err=True)
    raise typer.Exit(EXIT_USAGE if type(error).__name__ in USAGE_ERRORS else EXIT_FAILED)


def build_command() -> TyperCommand:
    """Return the command as a click command."""
    command = enable_value_pairs(cast("TyperCommand", get_command(app)))
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")  # the terminal wraps paragraphs
    return command


def main() -> None:
    """Run the command line of this process."""
    replace_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # escape what the terminal's encoding lacks
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # this program reports the errors of cells itself
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    build_command()()


def _show_warning(message: object, category: type[Warning], *_: object, line: str | None = None) -> None:  # noqa: ARG001
    if category.__name__ == "DerivaMLWarning":
        typer.echo(f"warning: {sanitize_line(message)}", err=True)


def _keep_value(value: Any) -> Any:
    return value


def enable_value_pairs(command: TyperCommand) -> TyperCommand:
    """Let the option ``-p`` take two values, any number of times; Typer has no type for that."""
    for option in command.params:
        if option.name == "parameter":
            option.nargs = 2
    return command


NotebookFile = Annotated[Path, typer.Argument(metavar="NOTEBOOK.ipynb", help="Notebook to run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="Hydra override for the notebook's configuration: assets=last_runs."),
]
ParameterPairs = Annotated[
    list[Any] | None,
    typer.Option(
        "--parameter", "-p", metavar="NAME VALUE", parser=_keep_value, help="Set a parameter of the notebook."
    ),
]
ParametersFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read parameters from a JSON or YAML file; -p overrides them."),
]
KernelName = Annotated[
    str | None, typer.Option("--kernel", "-k", metavar="NAME", help="Kernel to use instead of the notebook's own.")
]
Inspect = Annotated[bool, typer.Option("--inspect", help="List the notebook's parameters and exit.")]
LogOutput = Annotated[bool, typer.Option("--log-output", help="Show the output of the cells while they run.")]
Description = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Description of the run, unless the notebook creates its own execution.",
        show_default=False,
    ),
]
WorkflowType = Annotated[
    str | None,
    typer.Option(
        metavar="TERM",
        help="Workflow type of the notebook; by default the type it has in the catalog, else Evaluation.",
    ),
]
WorkingFolder = Annotated[
    Path | None,
    typer.Option(
        "--cwd", metavar="FOLDER", help="Working folder of the kernel; by default the folder of the notebook."
    ),
]
Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="Server of the catalog, or file:<folder>; also sets a parameter named host."),
]
CatalogNumber = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Catalog ID on the server; also sets a parameter named catalog."),
]
ConfigFolder = Annotated[
    Path | None,
    typer.Option("--config-dir", metavar="FOLDER", help="Folder of the project's configs, to which overrides apply."),
]
