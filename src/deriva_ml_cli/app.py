"""The command itself: its sub-commands by name, each imported when it is called, and its errors in one line."""

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

RUNS, CATALOG, MACHINE = "Runs", "The catalog", "This machine"

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "list": (RUNS, "List executions, newest first or best first, each in its real state."),
        "show": (RUNS, "Show an execution, workflow, dataset or asset."),
        "status": (RUNS, "Say the state of an execution."),
        "abort": (RUNS, "End a run, and have it recorded as Aborted."),
        "diff": (RUNS, "Show what differs between two executions."),
        "lineage": (RUNS, "Show what something was made from, and what was made from it."),
        "upload": (RUNS, "Send what was registered and not yet sent."),
        "push": (RUNS, "Copy an execution to another catalog."),
        "verify": (RUNS, "Read stored files again and compare them with what was recorded."),
        "reproduce": (RUNS, "Rebuild an execution's code, inputs and records."),
        "export": (RUNS, "Tell an execution to other software, as an RO-Crate or as PROV-JSON."),
        "download": (RUNS, "Bring an asset, or a version of a dataset, to this machine."),
        "workflows": (CATALOG, "List workflows, newest first: the code that was run."),
        "datasets": (CATALOG, "List datasets, newest first, each with its present version."),
        "vocabulary": (CATALOG, "List the terms of a vocabulary, or of all."),
        "storage": (MACHINE, "Show where the bytes are, by table and by folder."),
        "cleanup": (MACHINE, "Delete what is safe to delete on this machine; it asks first."),
        "plugins": (MACHINE, "List plugins with the hooks that they answer."),
        "doctor": (MACHINE, "Look at what runs stand on, and say what to do."),
        "config": (MACHINE, "Show which catalog is used, what is set, what is installed."),
        "init": (MACHINE, "Make a catalog, and say where it is."),
    }
)
"""The sub-commands in the order of the help: group, and the first sentence of its own help."""

EXIT_FAILURE, EXIT_USAGE = 1, 2

USAGE_ERRORS = (
    "ConfigurationError",
    "InvalidRID",
    "UnknownAddress",
    "UnknownMetric",
    "UnknownRID",
    "UnknownTable",
    "UnknownTerm",
    "UnknownVersion",
    "UnknownWorkflow",
    "WrongTable",
)
"""The mistakes that are the caller's: what was named does not exist or cannot be meant."""


class _LazyGroup(TyperGroup):
    """Sub-commands that are imported when they are asked for; what goes wrong in one ends in one line."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """What a list of commands shows of one; `resolve_command` gives the command itself."""
        if cmd_name not in COMMANDS:
            return None
        group, sentence = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=sentence, rich_help_panel=group)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment] # whose names are suggested
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else _load_command(name), rest

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
    epilog="Exit codes: 0 done; 1 what was to be found out or done failed; 2 wrong use. "
    "Without --host it is the embedded catalog of this machine.",
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"deriva-ml-core {version('deriva-ml-core')}")
        raise typer.Exit


@app.callback()
def _root_callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """Read, compare, check and finish machine-learning runs that deriva-ml recorded."""


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show ends nothing
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    app()


def _print_warning(message: object, category: type[Warning], *_: object, line: str | None = None) -> None:  # noqa: ARG001
    """Say a warning of ours in one line; those of libraries are not this program's to tell."""
    if category.__name__ == "DerivaMLWarning":
        typer.echo(f"warning: {message}", err=True)
