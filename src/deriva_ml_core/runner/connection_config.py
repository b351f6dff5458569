"""Connection settings of a catalog, as a value that a config can build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, model_validator

from deriva_ml_core._deprecation import warn_deprecated
from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import FrozenModel
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT

__all__ = ["DerivaMLConfig"]


class DerivaMLConfig(FrozenModel):
    """Arguments of `DerivaML` as a value that hydra-zen can build. Building it does not connect.

    Args:
        hostname: The host name of a server, ``file:<folder>`` for the embedded catalog in that folder, or None (the
            default) for the embedded catalog under ``DERIVA_ML_HOME``.
        catalog_id: The catalog's ID on the server; None for an embedded catalog.
        working_dir: The folder for the working folders of executions; None for the catalog's default.
        credential: The login for a server, ``{"bearer-token": …}`` or ``{"cookie": …}``; None for the stored one.
            Hydra writes configs to its output folder, so refer to an environment variable: ``${oc.env:MY_TOKEN}``.
        clean_execution_dir: Whether an upload deletes the staged files that it has sent. True by default.
        exit_timeout: Maximum seconds to wait on exit for background writes and plugins. 30 by default.
        patience: Deprecated name of `exit_timeout`. If set, it replaces `exit_timeout`. Removed in 0.3.0.
    """

    hostname: str | None = None
    catalog_id: str | int | None = None
    working_dir: Path | None = None
    credential: Mapping[str, SecretStr] | None = Field(default=None, repr=False)
    clean_execution_dir: bool = True
    exit_timeout: float = Field(default=DEFAULT_EXIT_TIMEOUT, ge=0)
    # a field, so that it is in the signature: configs with all parameters then accept the override deriva_ml.patience=
    patience: float | None = Field(default=None, ge=0, exclude=True, repr=False)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        values = state["__dict__"]
        if "exit_timeout" not in values:  # pickled by version 0.1
            state = {**state, "__dict__": {**values, "exit_timeout": values["patience"], "patience": None}}
        super().__setstate__(state)

    @model_validator(mode="before")
    @classmethod
    def _rename_patience(cls, values: Any) -> Any:
        """Use the deprecated `patience` as `exit_timeout`."""
        if not isinstance(values, Mapping) or values.get("patience") is None:
            return values
        warn_deprecated("DerivaMLConfig(patience=…)", "exit_timeout")
        return {**values, "exit_timeout": values["patience"], "patience": None}

    def connect(self, ml_class: type[DerivaML] | None = None) -> DerivaML:
        """Connect to the catalog.

        Args:
            ml_class: The class of the client: `DerivaML` (the default) or a subclass of it.

        Returns:
            The client.

        Raises:
            UnknownAddress: No backend supports the host name.
            CatalogUnavailable: The server cannot be reached.
        """
        credential = None
        if self.credential is not None:
            credential = {name: part.get_secret_value() for name, part in self.credential.items()}
        return (ml_class or DerivaML)(
            self.hostname,
            self.catalog_id,
            working_dir=self.working_dir,
            credential=credential,
            clean_execution_dir=self.clean_execution_dir,
            exit_timeout=self.exit_timeout,
        )
