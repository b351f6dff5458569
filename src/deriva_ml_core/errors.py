"""All errors that this software raises, one class per mistake, and the category of its warnings.

Every error derives from `DerivaMLException`, so that one ``except`` clause catches all of them.
"""

from __future__ import annotations

from deriva_ml_core._deprecation import DerivaMLDeprecationWarning, deprecated_names
from deriva_ml_core._text import escape_control_characters

__all__ = [
    "AccessRefused",
    "AlreadyBestCheckpoint",
    "AmbiguousName",
    "CatalogCorrupt",
    "CatalogReadOnly",
    "CatalogTooNew",
    "CatalogUnavailable",
    "ChecksumMismatch",
    "ConfigurationError",
    "ConflictingWorkflow",
    "DatasetCycle",
    "DerivaMLDeprecationWarning",
    "DerivaMLException",
    "DerivaMLWarning",
    "DiskFull",
    "DuplicateRow",
    "ExecutionCycle",
    "ExecutionNotStarted",
    "ExecutionRunning",
    "FileConflict",
    "FileUnavailable",
    "InvalidBag",
    "InvalidCondition",
    "InvalidFileName",
    "InvalidRID",
    "InvalidTag",
    "InvalidTransition",
    "LoginRequired",
    "MalformedData",
    "MetadataConflict",
    "MissingDependency",
    "MissingFiles",
    "NotInDryRun",
    "NotInTrash",
    "NotReproducible",
    "NotebookFailed",
    "PluginError",
    "RankZeroRequired",
    "RowInUse",
    "StoreConflict",
    "StoreUnavailable",
    "TrainingInterrupted",
    "UnconfirmedStore",
    "UnknownAddress",
    "UnknownBaseline",
    "UnknownCheckpoint",
    "UnknownColumn",
    "UnknownMetric",
    "UnknownParameter",
    "UnknownRID",
    "UnknownTable",
    "UnknownTerm",
    "UnknownVersion",
    "UnknownWorkflow",
    "UploadFailed",
    "WorkflowMissing",
    "WrongTable",
]


class DerivaMLException(Exception):
    """Base class of all errors. The message states what happened, to what, and what to do next.

    The control characters of a server's text or a file name are escaped in it, so that they cannot control a terminal.
    The logins of URLs are replaced.
    """

    def __str__(self) -> str:
        return _make_printable(super().__str__())


class ConfigurationError(DerivaMLException):
    """A configuration, a configuration file or an argument is invalid."""


class MissingDependency(ConfigurationError):
    """An optional package is not installed; the message names the extra that installs it."""


class UnknownAddress(DerivaMLException):
    """No backend serves this host name or URL scheme."""


class CatalogUnavailable(DerivaMLException):
    """The catalog cannot be reached. The same call may succeed later."""


class CatalogCorrupt(DerivaMLException):
    """The catalog's file is damaged, or is not a catalog."""


class CatalogTooNew(DerivaMLException):
    """A newer version of this software wrote the catalog."""


class CatalogReadOnly(DerivaMLException):
    """The catalog cannot be written: it is a snapshot, its folder is read-only, or permission is missing."""


class LoginRequired(CatalogUnavailable):
    """The server does not know the user: there is no login, or the session has expired."""


class AccessRefused(CatalogReadOnly):
    """The server denies this user the right to read or change something."""


class MalformedData(DerivaMLException):
    """A row or a document of the catalog has an unexpected form."""


class DuplicateRow(DerivaMLException):
    """A row with the same key, or a table with the same name, already exists."""


class RowInUse(DerivaMLException):
    """A row cannot be deleted, or its key changed, because other rows refer to it."""


class InvalidRID(DerivaMLException):
    """A text is not a valid record identifier."""


class UnknownRID(DerivaMLException):
    """No row has this record identifier."""


class WrongTable(DerivaMLException):
    """The record identifier belongs to a row of another table."""


class UnknownTable(DerivaMLException):
    """The catalog has no such table, or the table is not of the required kind."""


class UnknownCheckpoint(DerivaMLException):
    """The execution did not save this checkpoint, or has not uploaded it yet."""


class AlreadyBestCheckpoint(DerivaMLException):
    """The checkpoint that a correction names is the best one already."""


class UnknownColumn(DerivaMLException):
    """The table has no such column, or the column cannot be set."""


class UnknownTerm(DerivaMLException):
    """The vocabulary has no such term."""


class UnknownVersion(DerivaMLException):
    """The dataset or catalog has no such version."""


class UnknownMetric(DerivaMLException):
    """No execution has reported this metric."""


class UnknownParameter(DerivaMLException):
    """No execution has recorded this parameter or metric."""


class AmbiguousName(ConfigurationError):
    """A name is that of a parameter and of a metric."""


class InvalidCondition(ConfigurationError):
    """A condition on parameters or metrics cannot be parsed."""


class InvalidTag(ConfigurationError):
    """A tag of an execution, or the name of a baseline, is empty, too long, or has characters that tags cannot have."""


class UnknownBaseline(DerivaMLException):
    """No execution is the baseline of this name."""


class UnknownWorkflow(DerivaMLException):
    """No workflow has this URL or checksum."""


class DatasetCycle(DerivaMLException):
    """A dataset would contain itself."""


class ExecutionCycle(DerivaMLException):
    """An execution would be nested in itself."""


class ExecutionNotStarted(DerivaMLException):
    """The execution was accessed before it exists. It is created when training starts."""


class ExecutionRunning(DerivaMLException):
    """A living process is still running the execution, so no other process can continue it."""


class TrainingInterrupted(DerivaMLException):
    """A training ended early, and the program handled its exception. It is not raised, but the reason of a status."""


class WorkflowMissing(DerivaMLException):
    """An execution was created without a workflow."""


class ConflictingWorkflow(DerivaMLException):
    """An execution was created with two different workflows."""


class NotReproducible(DerivaMLException):
    """The source code of a run cannot be rebuilt.

    Raised when a run is reproduced, and before a run starts if ``DERIVA_ML_REQUIRE_CLEAN=1`` is set.
    """


class NotebookFailed(DerivaMLException):
    """A notebook cell raised an error, or the kernel died or did not start."""


class InvalidTransition(DerivaMLException):
    """The new status cannot follow the current one."""


class NotInDryRun(DerivaMLException):
    """The operation is not available in a dry run, which writes nothing."""


class NotInTrash(DerivaMLException):
    """A deleted execution cannot be restored: it is not in the trash any more, or a row that it needs is gone."""


class RankZeroRequired(DerivaMLException):
    """The operation is only available in the rank 0 process of a distributed run."""


class InvalidBag(DerivaMLException):
    """A folder is not a dataset bag, the bag's files do not match its manifest, or the bag cannot be built."""


class InvalidFileName(DerivaMLException):
    """A file name leaves its folder, or no file system accepts it."""


class FileConflict(DerivaMLException):
    """Two different files have the same name."""


class MetadataConflict(DerivaMLException):
    """A file with the same bytes and name is already recorded with different metadata."""


class MissingFiles(DerivaMLException):
    """Registered files were never written, or were removed before their upload."""


class ChecksumMismatch(DerivaMLException):
    """Bytes differ from the recorded length or checksum."""


class StoreConflict(ConfigurationError):
    """A catalog keeps its files in another store than the one that was named."""


class UnconfirmedStore(ConfigurationError):
    """A catalog keeps its files in a store that this user has not used before. Confirm it, or use another catalog.

    Attributes:
        store: Address of the store.
    """

    def __init__(self, message: str, store: str) -> None:
        super().__init__(message, store)
        self.store = store

    def __str__(self) -> str:
        return _make_printable(str(self.args[0]))


class StoreUnavailable(DerivaMLException):
    """The object store cannot be reached. The same call may succeed later."""


class DiskFull(DerivaMLException, OSError):
    """A disk has too little free space for an object. Free some space before you retry."""


class FileUnavailable(DerivaMLException, OSError):
    """A file or lock in a working folder or cache cannot be read or written, for example because the disk failed."""


class UploadFailed(DerivaMLException):
    """An upload could not send all files. Unsent files stay staged."""


class PluginError(DerivaMLException):
    """A plugin cannot be loaded, or returned an invalid result."""


class DerivaMLWarning(UserWarning):
    """Category of all warnings. A warning never stops a run. Its message is as printable as an error's."""

    def __str__(self) -> str:
        return _make_printable(super().__str__())


def _make_printable(message: str) -> str:
    if "://" in message and "@" in message:
        from deriva_ml_core.redaction import redact_url_logins  # many patterns to compile

        message = redact_url_logins(message)
    return escape_control_characters(message)


__getattr__ = deprecated_names(
    __name__,
    {
        "DryRunOnly": "NotInDryRun",
        "ExecutionNotBegun": "ExecutionNotStarted",
        "FollowerOnly": "RankZeroRequired",
        "StoreFull": "DiskFull",
        "WorkflowTwice": "ConflictingWorkflow",
    },
)
