"""``deriva-ml init``: make an embedded catalog."""

from __future__ import annotations

from deriva_ml_cli.options import AsJson, Host, command

__all__ = ["app"]


@command("deriva-ml init", "deriva-ml init --host file:/data/my-catalog")
def app(as_json: AsJson = False, host: Host = None) -> None:
    """Make the embedded catalog, and say where it lies.

    Nobody needs this, as a catalog is made on first use; but it tells whether one can be made.
    """
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import console, print_json, shown
    from deriva_ml_core.errors import ConfigurationError
    from deriva_ml_core.models import Address

    if not Address(hostname=host).is_embedded:
        raise ConfigurationError(f"{host} names a server: only embedded catalogs are made here, in file:<folder>.")
    with opened(host, None) as ml:
        folder, tables = ml.connection.folder, sorted(ml.connection.catalog.model.tables)
    if as_json:
        print_json({"folder": folder, "tables": tables})
    else:
        console().print(shown(f"The catalog is in {folder}; it has {len(tables)} tables."), soft_wrap=True)
