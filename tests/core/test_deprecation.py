"""Old public names keep working, warn at the user's line, and are not shown by ``dir``."""

from __future__ import annotations

from importlib import import_module

import pytest

from deriva_ml_core import DerivaML
from deriva_ml_core._deprecation import deprecated_keywords
from deriva_ml_core.backend import AnyOf
from deriva_ml_core.definitions import Status, TransferMode
from deriva_ml_core.errors import DerivaMLDeprecationWarning

OLD_NAMES = {
    "deriva_ml_core": {
        "DryRunOnly": "NotInDryRun",
        "ExecutionNotBegun": "ExecutionNotStarted",
        "ExecutionRecord": "ExecutionInfo",
        "FollowerOnly": "RankZeroRequired",
        "Handover": "TransferMode",
        "StoreFull": "DiskFull",
        "WorkflowTwice": "ConflictingWorkflow",
    },
    "deriva_ml_core.errors": {
        "DryRunOnly": "NotInDryRun",
        "ExecutionNotBegun": "ExecutionNotStarted",
        "FollowerOnly": "RankZeroRequired",
        "StoreFull": "DiskFull",
        "WorkflowTwice": "ConflictingWorkflow",
    },
    "deriva_ml_core.definitions": {"Handover": "TransferMode"},
    "deriva_ml_core.models": {"ExecutionRecord": "ExecutionInfo", "Value": "FrozenModel"},
    "deriva_ml_core.backend": {
        "Condition": "Filter",
        "Either": "AnyOf",
        "FILLED": "NOT_NULL",
        "Linked": "InSubquery",
    },
    "deriva_ml_core.schema": {
        "asset_type_table": "asset_type_table_name",
        "association": "association_table",
        "dataset_table": "dataset_element_table_name",
        "execution_table": "asset_execution_table_name",
    },
    "deriva_ml_core.hookspecs": {
        "Contributions": "CollectHooks",
        "News": "NotificationHooks",
        "Questions": "FirstResultHooks",
    },
    "deriva_ml_core.training": {"Opening": "ExecutionFactory", "OptionWords": "TrainingKwargs"},
    "deriva_ml_core.testing": {"Heard": "HookCall", "NewsRecorder": "HookRecorder"},
}
PAIRS = [(module, old, new) for module, names in OLD_NAMES.items() for old, new in names.items()]


@pytest.mark.parametrize(("module", "old", "new"), PAIRS, ids=[f"{module}.{old}" for module, old, _ in PAIRS])
def test_old_name_of_a_module(module: str, old: str, new: str) -> None:
    """An old name is the new object, and the warning names both and this file."""
    loaded = import_module(module)
    with pytest.warns(DerivaMLDeprecationWarning, match=rf"{module}\.{old} is deprecated .* use {new}\.") as warned:
        found = getattr(loaded, old)
    assert found is getattr(loaded, new)
    assert warned[0].filename == __file__
    assert old not in dir(loaded)
    assert old not in loaded.__all__


def test_old_attributes() -> None:
    """Old attributes of values and statuses give what the new ones give."""
    with pytest.warns(DerivaMLDeprecationWarning, match=r"Status\.ended is deprecated .* use is_terminal\."):
        assert Status.failed.ended is True
    with pytest.warns(DerivaMLDeprecationWarning, match="can_transition_to"):
        assert Status.created.may_become(Status.running) is True
    with pytest.warns(DerivaMLDeprecationWarning, match="filters"):
        assert AnyOf(({"RID": "1"},)).conditions == ({"RID": "1"},)
    assert TransferMode.share is TransferMode.hardlink
    with pytest.raises(AttributeError, match="'Status' object has no attribute 'nonsense'"):
        Status.failed.nonsense  # noqa: B018


def test_old_keyword_of_the_client() -> None:
    """``DerivaML(patience=...)`` sets ``exit_timeout``."""
    with pytest.warns(DerivaMLDeprecationWarning, match=r"keyword 'patience' of DerivaML.__init__\(\)") as warned:
        ml = DerivaML(patience=1.5)  # type: ignore[call-arg]
    assert ml.connection.exit_timeout == 1.5
    assert warned[0].filename == __file__


def test_a_keyword_and_its_old_name() -> None:
    """Both spellings in one call are an error, as a repeated keyword is."""

    @deprecated_keywords({"old": "new"})
    def function(new: int = 0) -> int:
        return new

    with pytest.raises(TypeError, match="both 'old' and its new name 'new'"):
        function(old=1, new=2)  # type: ignore[call-arg]
