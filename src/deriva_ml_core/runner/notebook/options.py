"""The words of ``deriva-ml-run-notebook``'s command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

__all__ = [
    "CatalogNumber",
    "ConfigFolder",
    "Description",
    "ParametersFile",
    "WorkingFolder",
    "Host",
    "Inspect",
    "KernelName",
    "LogOutput",
    "NotebookFile",
    "Overrides",
    "ParameterPairs",
    "WorkflowType",
    "enable_value_pairs",
]


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
