"""The words that several commands share on their command lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

__all__ = ["CONTEXT_SETTINGS", "AsJson", "CatalogNumber", "Host", "Limit", "PageNumber", "Rid", "Yes", "command"]

CONTEXT_SETTINGS: Mapping[str, Any] = MappingProxyType({"help_option_names": ["-h", "--help"]})

Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="A server's host name, or file:<folder> for the embedded catalog in that folder.",
        show_default="the embedded catalog of this machine",
    ),
]
CatalogNumber = Annotated[
    str | None, typer.Option("--catalog", metavar="ID", help="The catalog's number on that server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, for programs.")]
Rid = Annotated[str, typer.Argument(metavar="RID", help="A record id, such as 1-4A2C.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many a page has.")]
PageNumber = Annotated[int, typer.Option("--page", min=1, help="Which page.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def command(*examples: str) -> Callable[[Callable[..., None]], typer.Typer]:
    """Make a function the command of its module.

    Args:
        examples: Command lines that show its use, for its help.

    Returns:
        What turns the function into the application that the module calls ``app``.
    """

    def decorator(function: Callable[..., None]) -> typer.Typer:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        lines = ("Examples:", *(f"  {example}" for example in examples))
        app.command(context_settings=dict(CONTEXT_SETTINGS), epilog="\n\n".join(lines))(function)
        return app

    return decorator
