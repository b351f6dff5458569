"""The words that all rooms share: states, record ids, and the names of tables and vocabularies."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes, deprecated_names
from deriva_ml_core.errors import InvalidRID

__all__ = [
    "DRY_RUN_RID",
    "TransferMode",
    "MLAsset",
    "MLTable",
    "MLVocab",
    "RID",
    "RID_PATTERN",
    "Role",
    "Status",
    "check_rid",
    "split_rid",
]

RID = str
"""A row's id, such as ``1-4A2C``, optionally followed by ``@`` and a snapshot."""

RID_PATTERN = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_RID_REGEX = re.compile(rf"({RID_PATTERN})(?:@({RID_PATTERN}))?")

DRY_RUN_RID: RID = "0000"
"""The record id of an execution that writes nothing."""


def split_rid(rid: str) -> tuple[str, str | None]:
    """Take a record id apart.

    Args:
        rid: ``1-4A2C`` or ``1-4A2C@2TA-YBS5-1QQG``.

    Returns:
        The id alone, and the snapshot, None where none is given.

    Raises:
        InvalidRID: The text is not a record id.
    """
    found = _RID_REGEX.fullmatch(rid) if isinstance(rid, str) else None
    if found is None:
        raise InvalidRID(f"{rid!r} is not a RID: give letters and digits in groups joined by '-', such as '1-4A2C'.")
    return found[1], found[2]


def check_rid(rid: str) -> RID:
    """Return the record id unchanged, or raise `InvalidRID`."""
    split_rid(rid)
    return rid


class Status(StrEnum):
    """The state of an execution; the values are what the catalog's row says."""

    created = "Created"
    initializing = "Initializing"
    pending = "Pending"
    running = "Running"
    completed = "Completed"
    failed = "Failed"
    aborted = "Aborted"

    @property
    def is_terminal(self) -> bool:
        """Whether the run is over."""
        return self in (Status.completed, Status.failed, Status.aborted)

    def can_transition_to(self, new_status: Status) -> bool:
        """Whether `following` may be written after this state: never back to Created, never on from an end."""
        if self.is_terminal:
            return new_status.is_terminal
        return new_status is not Status.created or self is Status.created

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"ended": "is_terminal", "may_become": "can_transition_to"})


class TransferMode(StrEnum):
    """What a store may do with a file that it is given.

    ``copy``: read it, no more. ``share``: also keep its very bytes under a name of the store's own, since nobody will
    write to this file in place again; it stays where it is, and may be deleted. ``move``: take it away.
    """

    copy = "copy"
    hardlink = "share"
    share = "share"  # the old name of hardlink
    move = "move"


class Role(StrEnum):
    """What an asset was to an execution."""

    input = "Input"
    output = "Output"


class MLTable(StrEnum):
    """The tables of the ``deriva-ml`` schema that are neither vocabularies nor assets."""

    workflow = "Workflow"
    execution = "Execution"
    nested_execution = "Execution_Execution"
    execution_metric = "Execution_Metric"
    dataset = "Dataset"
    dataset_version = "Dataset_Version"
    nested_dataset = "Dataset_Dataset"
    dataset_execution = "Dataset_Execution"
    dataset_dataset_type = "Dataset_Dataset_Type"


class MLVocab(StrEnum):
    """The vocabularies of the ``deriva-ml`` schema."""

    asset_type = "Asset_Type"
    asset_role = "Asset_Role"
    dataset_type = "Dataset_Type"
    workflow_type = "Workflow_Type"
    feature_name = "Feature_Name"


class MLAsset(StrEnum):
    """The asset tables of the ``deriva-ml`` schema."""

    execution_metadata = "Execution_Metadata"
    execution_asset = "Execution_Asset"
    file = "File"


__getattr__ = deprecated_names(
    __name__,
    {
        "Handover": "TransferMode",
    },
)
