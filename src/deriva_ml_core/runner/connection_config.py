"""Which catalog a run goes to, as a configuration says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr

from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import FrozenModel
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT

__all__ = ["DerivaMLConfig"]


class DerivaMLConfig(FrozenModel):
    """What `DerivaML` is opened with, as a value that hydra-zen can build; building it opens nothing.

    Args:
        hostname: A server's host name; ``file:<folder>`` for the embedded catalog in that folder; None for the embedded
            catalog under ``DERIVA_ML_HOME``.
        catalog_id: The catalog's number on that server.
        working_dir: The folder for executions' working folders, instead of the catalog's own place.
        credential: What logs in on a server, ``{"bearer-token": …}`` or ``{"cookie": …}``; the stored login by default.
            Hydra writes configurations to its output folder: name a variable there, ``${oc.env:MY_TOKEN}``.
        clean_execution_dir: Whether uploads empty the staging folders of what was sent.
        exit_timeout: Seconds that the end of a run waits for what is still under way beside it; 30 by default.
    """

    hostname: str | None = None
    catalog_id: str | int | None = None
    working_dir: Path | None = None
    credential: Mapping[str, SecretStr] | None = Field(default=None, repr=False)
    clean_execution_dir: bool = True
    exit_timeout: float = Field(default=DEFAULT_EXIT_TIMEOUT, ge=0)

    def connect(self, ml_class: type[DerivaML] | None = None) -> DerivaML:
        """Open that catalog.

        Args:
            ml_class: The class of the client, one that is made of `DerivaML`; by default that itself.

        Raises:
            UnknownAddress: No backend answers for that address.
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
