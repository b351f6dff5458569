"""Options that several commands share, and how they open the catalog."""

from __future__ import annotations

import inspect
import shlex
import sys
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
    "Store",
    "Yes",
    "command",
    "join_paragraphs",
    "open_client",
]


CONTEXT_SETTINGS: Mapping[str, Any] = MappingProxyType({"help_option_names": ["-h", "--help"]})

Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="A server's host name, or file:<folder> for an embedded catalog in that folder.",
        show_default="the embedded catalog of this machine",
    ),
]
CatalogNumber = Annotated[
    str | None, typer.Option("--catalog", metavar="ID", help="The number of the catalog on the server.")
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="ADDRESS",
        help="Where the files are: s3://<bucket>/<prefix>?endpoint=https://<host>&region=<region>.",
        show_default="where the catalog says",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rid = Annotated[str, typer.Argument(metavar="RID", help="A RID, such as 1-4A2C.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Rows on a page.")]
PageNumber = Annotated[int, typer.Option("--page", min=1, help="The page, from 1.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def command(*examples: str) -> Callable[[Callable[..., None]], typer.Typer]:
    """Return a decorator that turns a function into the application of its command.

    Its docstring becomes the help. Each paragraph is joined to one line, which the terminal wraps to its width.

    Args:
        examples: Command lines for the help.
    """

    def decorator(function: Callable[..., None]) -> typer.Typer:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        lines = ("Examples:", *(f"  {example}" for example in examples))
        settings = dict(CONTEXT_SETTINGS)
        app.command(context_settings=settings, help=join_paragraphs(function), epilog="\n\n".join(lines))(function)
        return app

    return decorator


def join_paragraphs(function: Callable[..., None]) -> str:
    """Return a function's docstring with each paragraph on one line."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def open_client(
    host: str | None, catalog: str | None, *, create_missing: bool = False, store: str | None = None
) -> DerivaML:
    """Open the catalog that the options name. On a terminal, ask before the first use of its store.

    Args:
        host: A server's host name, or ``file:<folder>``; None for the default embedded catalog, which is created on
            first use.
        catalog: The number of the catalog on the server.
        create_missing: Whether to create a catalog in a folder that has none.
        store: Address of the catalog's store, which confirms its first use.

    Raises:
        UnknownAddress: No backend handles the address, or the folder has no catalog.
        UnconfirmedStore: The user has not confirmed the catalog's store.
    """
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.errors import UnconfirmedStore

    if host and not create_missing:
        _check_catalog_exists(host)
    try:
        return DerivaML(host, catalog, store=store)
    except UnconfirmedStore as error:
        if not _is_confirmed(error.store):
            raise
        return DerivaML(host, catalog, store=error.store)


def _is_confirmed(store: str) -> bool:
    """Whether the user confirms a store on the terminal. Without a terminal, the answer is no."""
    from deriva_ml_cli.terminal import safe_text

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = f"This catalog has its files in {safe_text(store)}, which you have not used before. Use it?"
    return typer.confirm(question, err=True)


def _check_catalog_exists(host: str) -> None:
    """Reject a folder without a catalog, so that a typo creates none."""
    from deriva_ml_core.errors import UnknownAddress
    from deriva_ml_core.paths import CATALOG_FILENAME, embedded_catalog_folder

    folder = embedded_catalog_folder(host)
    if folder is not None and not (folder / CATALOG_FILENAME).exists():
        raise UnknownAddress(f"{folder} has no catalog; create one with `deriva-ml init --host {shlex.quote(host)}`.")
