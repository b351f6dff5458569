"""Shared definitions: statuses, record identifiers, and the names of standard tables and vocabularies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

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
    "STATUS_TRAITS",
    "Status",
    "StatusTraits",
    "check_rid",
    "row_statuses",
    "status_from_row",
    "split_rid",
    "status_traits",
]

RID = str
"""A record identifier such as ``1-4A2C``, optionally followed by ``@`` and a snapshot."""

RID_PATTERN = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_RID_REGEX = re.compile(rf"({RID_PATTERN})(?:@({RID_PATTERN}))?")

DRY_RUN_RID: RID = "0000"
"""The RID of an execution in a dry run, which writes nothing."""


def split_rid(rid: str) -> tuple[str, str | None]:
    """Split a RID into the identifier and the snapshot.

    Args:
        rid: ``1-4A2C`` or ``1-4A2C@2TA-YBS5-1QQG``.

    Returns:
        The identifier, and the snapshot or None.

    Raises:
        InvalidRID: The text is not a RID.
    """
    match = _RID_REGEX.fullmatch(rid) if isinstance(rid, str) else None
    if match is None:
        raise InvalidRID(f"{rid!r} is not a RID: use letters and digits in groups joined by '-', such as '1-4A2C'.")
    return match[1], match[2]


def check_rid(rid: str) -> RID:
    """Return the RID unchanged, or raise `InvalidRID`."""
    split_rid(rid)
    return rid


class Status(StrEnum):
    """Status of an execution. The values are the terms in the catalog's Execution table."""

    created = "Created"
    initializing = "Initializing"
    pending = "Pending"
    running = "Running"
    completed = "Completed"
    failed = "Failed"
    aborted = "Aborted"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended: completed, failed or aborted."""
        return STATUS_TRAITS[self].is_terminal

    def can_transition_to(self, new_status: Status) -> bool:
        """Whether `new_status` can follow: never back to Created, and never from a terminal status to a live one.

        Args:
            new_status: The status to follow this one.

        Returns:
            True if the transition is allowed.
        """
        if self.is_terminal:
            return new_status.is_terminal
        return new_status is not Status.created or self is Status.created

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"ended": "is_terminal", "may_become": "can_transition_to"})


class StatusTraits(NamedTuple):
    """Everything that depends on a status. To add a status, add one entry to `STATUS_TRAITS`.

    Args:
        is_terminal: Whether the run has ended.
        terminal_style: Style in a terminal, as rich names it.
        html_colour: Colour of the badge in a notebook.
        schema_org: Action status of schema.org: https://schema.org/ActionStatusType.
        row_texts: Other texts of the column Status that mean this status. Newer DerivaML clients write them.
        fallback_terms: Terms to write instead, if the catalog has a vocabulary of statuses without this one; the first
            one that it has is written.
    """

    is_terminal: bool
    terminal_style: str
    html_colour: str
    schema_org: str
    row_texts: tuple[str, ...] = ()
    fallback_terms: tuple[str, ...] = ()


STATUS_TRAITS: Mapping[str, StatusTraits] = MappingProxyType(
    {
        Status.created: StatusTraits(
            is_terminal=False,
            terminal_style="cyan",
            html_colour="#6e7781",
            schema_org="PotentialActionStatus",
            fallback_terms=("Pending", "Initializing"),
        ),
        Status.initializing: StatusTraits(
            is_terminal=False,
            terminal_style="cyan",
            html_colour="#6e7781",
            schema_org="PotentialActionStatus",
            fallback_terms=("Created", "Pending", "Running"),
        ),
        Status.pending: StatusTraits(
            is_terminal=False,
            terminal_style="yellow",
            html_colour="#6e7781",
            schema_org="PotentialActionStatus",
            fallback_terms=("Created", "Running"),
        ),
        Status.running: StatusTraits(
            is_terminal=False,
            terminal_style="bold blue",
            html_colour="#0969da",
            schema_org="ActiveActionStatus",
        ),
        Status.completed: StatusTraits(
            is_terminal=True,
            terminal_style="green",
            html_colour="#1a7f37",
            schema_org="CompletedActionStatus",
            row_texts=("Stopped", "Pending_Upload", "Uploaded"),
            fallback_terms=("Stopped", "Uploaded"),
        ),
        Status.failed: StatusTraits(
            is_terminal=True,
            terminal_style="bold red",
            html_colour="#cf222e",
            schema_org="FailedActionStatus",
            fallback_terms=("Aborted", "Stopped"),
        ),
        Status.aborted: StatusTraits(
            is_terminal=True,
            terminal_style="magenta",
            html_colour="#9a6700",
            schema_org="FailedActionStatus",
            fallback_terms=("Failed", "Stopped"),
        ),
    }
)
"""The traits of each status."""

_UNKNOWN_STATUS = StatusTraits(False, "", "#6e7781", "PotentialActionStatus")


def status_traits(status: str) -> StatusTraits:
    """Return the traits of a status. An unknown status has neutral traits."""
    return STATUS_TRAITS.get(status, _UNKNOWN_STATUS)


def row_statuses(status: Status) -> list[str]:
    """Return all texts of the column Status that mean a status."""
    return [status.value, *STATUS_TRAITS[status].row_texts]


def status_from_row(text: str | None) -> Status | None:
    """Return the status of a row of the table Execution.

    Args:
        text: Text of the column Status, in upper or lower case. Empty means Created.

    Returns:
        The status, or None for a text of another program without an equivalent.
    """
    folded = (text or Status.created).casefold()
    return next((status for status in Status if folded in map(str.casefold, row_statuses(status))), None)


class TransferMode(StrEnum):
    """What an object store may do with a file that it stores.

    Attributes:
        copy: Only read the file.
        hardlink: Create a second name for the file in the store. The caller promises never to write to the file in
            place again. The file stays where it is and can be deleted.
        move: Take the file away.
    """

    copy = "copy"
    hardlink = "share"
    share = "share"  # the old name of hardlink
    move = "move"


class Role(StrEnum):
    """Role of an asset in an execution."""

    input = "Input"
    output = "Output"


class MLTable(StrEnum):
    """Tables of the ``deriva-ml`` schema that are neither vocabularies nor asset tables."""

    workflow = "Workflow"
    execution = "Execution"
    nested_execution = "Execution_Execution"
    execution_metric = "Execution_Metric"
    execution_parameter = "Execution_Parameter"
    execution_tag = "Execution_Tag"
    dataset = "Dataset"
    dataset_version = "Dataset_Version"
    nested_dataset = "Dataset_Dataset"
    dataset_execution = "Dataset_Execution"
    dataset_dataset_type = "Dataset_Dataset_Type"


class MLVocab(StrEnum):
    """Vocabularies of the ``deriva-ml`` schema."""

    asset_type = "Asset_Type"
    asset_role = "Asset_Role"
    dataset_type = "Dataset_Type"
    workflow_type = "Workflow_Type"
    feature_name = "Feature_Name"


class MLAsset(StrEnum):
    """Asset tables of the ``deriva-ml`` schema."""

    execution_metadata = "Execution_Metadata"
    execution_asset = "Execution_Asset"
    file = "File"


__getattr__ = deprecated_names(
    __name__,
    {
        "Handover": "TransferMode",
    },
)
