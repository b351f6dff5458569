"""A plugin that remembers the news it hears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core.models import ExecutionInfo, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl

__all__ = ["HookCall", "HookRecorder"]


@dataclass(frozen=True, slots=True)
class HookCall:
    """One piece of news.

    Args:
        hook: The hook's name.
        execution: Of which execution.
        payload: What was told.
    """

    hook: str
    execution: ExecutionInfo
    payload: StatusUpdate | StagedAsset | UploadReport

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"news": "payload"})


@dataclass(eq=False)
class HookRecorder:
    """Keeps all news, in the order in which it came; register it with a plugin manager.

    Args:
        calls: What it has heard so far.
    """

    calls: list[HookCall] = field(default_factory=list)

    @property
    def hook_names(self) -> list[str]:
        """The names of the hooks, in order."""
        return [one.hook for one in self.calls]

    def payloads(self, hook: str) -> list[StatusUpdate | StagedAsset | UploadReport]:
        """What one hook told, in order."""
        return [one.payload for one in self.calls if one.hook == hook]

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"heard": "calls", "hooks": "hook_names", "of": "payloads"})

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        self.calls.append(HookCall("status_changed", execution, update))

    @hookimpl
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        self.calls.append(HookCall("asset_registered", execution, asset))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        self.calls.append(HookCall("outputs_uploaded", execution, report))
