"""The command ``deriva-ml``: its subcommands, each imported when it is called, and errors in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from deriva_ml_cli.command_options import CONTEXT_SETTINGS

__all__ = ["COMMANDS", "app", "main"]

RUNS, CATALOG, MACHINE = "Runs", "Catalog", "This machine"

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "list": (RUNS, "List executions, newest first or best first."),
        "show": (RUNS, "Show an execution, workflow, dataset or asset."),
        "status": (RUNS, "Show the status of an execution."),
        "logs": (RUNS, "Show what a run printed."),
        "abort": (RUNS, "Stop a run and record it as Aborted."),
        "tag": (RUNS, "Add tags to an execution, or remove them."),
        "note": (RUNS, "Show or change the description of an execution, dataset or workflow."),
        "baseline": (RUNS, "Set the execution that others are compared with."),
        "diff": (RUNS, "Show what differs between executions."),
        "lineage": (RUNS, "Show what a row is derived from and what used it."),
        "upload": (RUNS, "Upload staged files."),
        "push": (RUNS, "Copy an execution to another catalog."),
        "verify": (RUNS, "Verify stored files against their recorded checksums."),
        "reproduce": (RUNS, "Rebuild a run: its code, inputs and metadata files."),
        "export": (RUNS, "Export a run as RO-Crate, PROV-JSON or HTML."),
        "download": (RUNS, "Download an asset or a version of a dataset."),
        "delete": (RUNS, "Delete an execution, or restore a deleted one."),
        "mcp": (
            RUNS,
            "Offer the catalog to an agent, as tools of the Model Context Protocol on standard input and output.",
        ),
        "workflows": (CATALOG, "List workflows, newest first."),
        "ui": (CATALOG, "Show the catalog as a web page, until Ctrl-C."),
        "datasets": (CATALOG, "List datasets, newest first."),
        "vocabulary": (CATALOG, "List the terms of vocabularies."),
        "storage": (MACHINE, "Show disk usage by table and by folder."),
        "cleanup": (MACHINE, "Delete local files that are stored in the catalog."),
        "plugins": (MACHINE, "List plugins and the hooks they implement."),
        "doctor": (MACHINE, "Check the installation and suggest fixes."),
        "config": (MACHINE, "Show the catalog, the settings and the installed versions."),
        "init": (MACHINE, "Create a catalog."),
    }
)
"""The subcommands in the order of the help: their group, and the first sentence of their own help."""

EXIT_FAILURE, EXIT_USAGE = 1, 2

USAGE_ERRORS = (
    "AmbiguousName",
    "ConfigurationError",
    "InvalidCondition",
    "InvalidRID",
    "InvalidTag",
    "NotInTrash",
    "StoreConflict",
    "UnconfirmedStore",
    "UnknownAddress",
    "UnknownBaseline",
    "UnknownColumn",
    "UnknownMetric",
    "UnknownParameter",
    "UnknownRID",
    "UnknownTable",
    "UnknownTerm",
    "UnknownVersion",
    "UnknownWorkflow",
    "WrongTable",
)
"""The errors that exit with `EXIT_USAGE`: an argument is invalid or names nothing."""


class _LazyGroup(TyperGroup):
    """A group whose subcommands are imported on demand, and whose errors are printed in one line."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a placeholder for the list of commands; `resolve_command` returns the command itself."""
        if cmd_name not in COMMANDS:
            return None
        group, sentence = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=sentence, rich_help_panel=group)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment] # for suggestions after a typo
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else _load_command(name), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _exit_with_error(str(error), EXIT_FAILURE)
        except Exception as error:
            from deriva_ml_core.errors import DerivaMLException

            if not isinstance(error, DerivaMLException):
                raise
            _exit_with_error(str(error), EXIT_USAGE if type(error).__name__ in USAGE_ERRORS else EXIT_FAILURE)


def _load_command(name: str) -> Any:
    command = get_command(import_module(f"deriva_ml_cli.commands.{name}").app)
    command.name = name
    return command


def _exit_with_error(message: str, code: int) -> NoReturn:
    from deriva_ml_core._text import sanitize_line

    typer.echo(f"error: {sanitize_line(message)}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=_LazyGroup,
    name="deriva-ml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=dict(CONTEXT_SETTINGS),
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage. "
    "Without --host, commands use the embedded catalog of this machine.",
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"deriva-ml-core {version('deriva-ml-core')}")
        raise typer.Exit


@app.callback()
def _root_callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """List, show, compare, verify, upload and reproduce recorded machine-learning runs."""


def main() -> None:
    """Run ``deriva-ml`` with the arguments of this process."""
    from deriva_ml_core._progress import replace_missing_streams

    replace_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # print a name that the terminal's encoding lacks
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    app()


def _print_warning(message: object, category: type[Warning], *_: object, line: str | None = None) -> None:  # noqa: ARG001
    """Print a warning of this software in one line; warnings of libraries are left out."""
    if category.__name__ == "DerivaMLWarning":
        from deriva_ml_core._text import sanitize_line

        typer.echo(f"warning: {sanitize_line(message)}", err=True)
