"""The client that a command asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = [
    "CONTEXT_SETTINGS",
    "AsJson",
    "CatalogNumber",
    "Host",
    "Limit",
    "PageNumber",
    "Rid",
    "Yes",
    "command",
    "open_client",
]


def open_client(host: str | None, catalog: str | None, *, create_missing: bool = False) -> DerivaML:
    """Open the catalog that the command line names, the embedded one where it names none.

    Args:
        host: A server, or ``file:<folder>``; None for the default embedded catalog, which is made on first use.
        catalog: The catalog's number on that server.
        create_missing: Whether a folder that is named and has no catalog gets one.

    Raises:
        UnknownAddress: No backend answers for it, or the folder has no catalog.
    """
    from deriva_ml_core.client import DerivaML

    if host and not create_missing:
        _check_catalog_exists(host)
    return DerivaML(host, catalog)


def _check_catalog_exists(host: str) -> None:
    """Refuse a folder that was mistyped, in which a catalog would be made that nobody asked for."""
    from deriva_ml_core.errors import UnknownAddress
    from deriva_ml_core.paths import CATALOG_FILENAME, embedded_catalog_folder

    folder = embedded_catalog_folder(host)
    if folder is not None and not (folder / CATALOG_FILENAME).exists():
        raise UnknownAddress(f"There is no catalog in {folder}: `deriva-ml init --host {host}` makes one.")


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
