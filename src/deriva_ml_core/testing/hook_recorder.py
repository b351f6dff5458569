"""A plugin for tests that records the notifications it receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core.models import ExecutionInfo, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl

__all__ = ["HookCall", "HookRecorder"]


@dataclass(frozen=True, slots=True)
class HookCall:
    """One recorded notification.

    Args:
        hook: Name of the hook.
        execution: The execution as passed to the hook.
        payload: The other argument of the hook.
    """

    hook: str
    execution: ExecutionInfo
    payload: StatusUpdate | StagedAsset | UploadReport

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"news": "payload"})


@dataclass(eq=False)
class HookRecorder:
    """Records all notifications in order; register it with a plugin manager.

    Args:
        calls: The notifications received so far.
    """

    calls: list[HookCall] = field(default_factory=list)

    @property
    def hook_names(self) -> list[str]:
        """Hook names of the notifications, in order."""
        return [call.hook for call in self.calls]

    def payloads(self, hook: str) -> list[StatusUpdate | StagedAsset | UploadReport]:
        """Return the payloads of one hook, in order."""
        return [call.payload for call in self.calls if call.hook == hook]

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
