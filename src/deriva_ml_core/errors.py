"""Every mistake that this software reports: one root, one class a mistake."""

from __future__ import annotations

from deriva_ml_core._deprecation import DerivaMLDeprecationWarning, deprecated_names

__all__ = [
    "AccessRefused",
    "CatalogCorrupt",
    "CatalogReadOnly",
    "CatalogTooNew",
    "CatalogUnavailable",
    "ChecksumMismatch",
    "ConfigurationError",
    "DatasetCycle",
    "DerivaMLDeprecationWarning",
    "DerivaMLException",
    "DerivaMLWarning",
    "NotInDryRun",
    "DuplicateRow",
    "ExecutionCycle",
    "ExecutionNotStarted",
    "ExecutionRunning",
    "FileConflict",
    "RankZeroRequired",
    "InvalidBag",
    "InvalidFileName",
    "InvalidRID",
    "InvalidTransition",
    "LoginRequired",
    "MetadataConflict",
    "MissingFiles",
    "NotebookFailed",
    "NotReproducible",
    "PluginError",
    "RowInUse",
    "DiskFull",
    "StoreUnavailable",
    "UnknownAddress",
    "UnknownCheckpoint",
    "UnknownColumn",
    "UnknownMetric",
    "UnknownRID",
    "UnknownTable",
    "UnknownTerm",
    "UnknownVersion",
    "UnknownWorkflow",
    "UploadFailed",
    "WorkflowMissing",
    "ConflictingWorkflow",
    "WrongTable",
]


class DerivaMLException(Exception):
    """The root of all errors of this software: it says what happened, to what, and what to do next."""


class ConfigurationError(DerivaMLException):
    """A configuration, a file of one, or an argument that cannot be meant."""


class UnknownAddress(DerivaMLException):
    """A host name or scheme that no backend answers for."""


class CatalogUnavailable(DerivaMLException):
    """The catalog cannot be reached now; the same call may succeed later."""


class CatalogCorrupt(DerivaMLException):
    """The catalog's file is not a catalog, or is damaged."""


class CatalogTooNew(DerivaMLException):
    """The catalog was written by a newer version of this software."""


class CatalogReadOnly(DerivaMLException):
    """A write to a snapshot, to a read-only folder, or without the right to write."""


class LoginRequired(CatalogUnavailable):
    """A server that does not know who asks: nobody is logged in, or the session has ended."""


class AccessRefused(CatalogReadOnly):
    """Something that this user has no right to do, or to see, on a server."""


class DuplicateRow(DerivaMLException):
    """A row whose key is already taken."""


class RowInUse(DerivaMLException):
    """A row that cannot go, or change its key, since other rows refer to it."""


class InvalidRID(DerivaMLException):
    """A text that is not a record id."""


class UnknownRID(DerivaMLException):
    """A record id that names no row."""


class WrongTable(DerivaMLException):
    """A record id that names a row of another table."""


class UnknownTable(DerivaMLException):
    """A table that the catalog does not have, or not of that kind."""


class UnknownCheckpoint(DerivaMLException):
    """A checkpoint that the execution did not leave, or that is not uploaded yet."""


class UnknownColumn(DerivaMLException):
    """A column that the table does not have, or that may not be given."""


class UnknownTerm(DerivaMLException):
    """A term that the vocabulary does not have."""


class UnknownVersion(DerivaMLException):
    """A version that the dataset does not have."""


class UnknownMetric(DerivaMLException):
    """A metric that no execution has told of."""


class UnknownWorkflow(DerivaMLException):
    """A URL or checksum that no workflow has."""


class DatasetCycle(DerivaMLException):
    """A dataset that would contain itself."""


class ExecutionCycle(DerivaMLException):
    """An execution that would be nested in itself."""


class ExecutionNotStarted(DerivaMLException):
    """An execution that is made when its training begins was asked for before."""


class ExecutionRunning(DerivaMLException):
    """An execution that a living process runs, and that therefore nobody else can go on with."""


class WorkflowMissing(DerivaMLException):
    """An execution without a workflow."""


class ConflictingWorkflow(DerivaMLException):
    """An execution with two different workflows."""


class NotReproducible(DerivaMLException):
    """Source code that cannot be rebuilt: when it is to be, or where ``DERIVA_ML_REQUIRE_CLEAN=1`` asks before."""


class NotebookFailed(DerivaMLException):
    """A notebook of which a cell raised an error, or whose kernel died or did not start."""


class InvalidTransition(DerivaMLException):
    """A status that may not follow the present one."""


class NotInDryRun(DerivaMLException):
    """Something that a dry run cannot do, since it writes nothing."""


class RankZeroRequired(DerivaMLException):
    """Something that only the process of rank zero can do, in a process that follows it and writes nothing."""


class InvalidBag(DerivaMLException):
    """A folder that is no bag of a dataset, or a bag that lacks files, has others, or cannot be made."""


class InvalidFileName(DerivaMLException):
    """A file name that climbs out of its folder or that no file system takes."""


class FileConflict(DerivaMLException):
    """Two different files under one name."""


class MetadataConflict(DerivaMLException):
    """Equal bytes under an equal name with other metadata than those recorded."""


class MissingFiles(DerivaMLException):
    """Files that were registered and never written, or that vanished before their upload."""


class ChecksumMismatch(DerivaMLException):
    """Bytes that are not those that were recorded."""


class StoreUnavailable(DerivaMLException):
    """The object store cannot be reached now; the same call may succeed later."""


class DiskFull(DerivaMLException, OSError):
    """A disk that has no room for an object, the store's or the one it is brought to; repeating alone does not help."""


class UploadFailed(DerivaMLException):
    """An upload that left files unsent; they stay staged."""


class PluginError(DerivaMLException):
    """A plugin that cannot be loaded, or that answers a question wrongly."""


class DerivaMLWarning(UserWarning):
    """The category of all warnings of this software: something to know, which stops nothing."""


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
