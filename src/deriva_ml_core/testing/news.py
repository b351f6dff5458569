"""A plugin that remembers the news it hears."""

from __future__ import annotations

from dataclasses import dataclass, field

from deriva_ml_core.models import ExecutionRecord, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl

__all__ = ["Heard", "NewsRecorder"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One piece of news.

    Args:
        hook: The hook's name.
        execution: Of which execution.
        news: What was told.
    """

    hook: str
    execution: ExecutionRecord
    news: StatusUpdate | StagedAsset | UploadReport


@dataclass(eq=False)
class NewsRecorder:
    """Keeps all news, in the order in which it came; register it with a plugin manager.

    Args:
        heard: What it has heard so far.
    """

    heard: list[Heard] = field(default_factory=list)

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks, in order."""
        return [one.hook for one in self.heard]

    def of(self, hook: str) -> list[StatusUpdate | StagedAsset | UploadReport]:
        """What one hook told, in order."""
        return [one.news for one in self.heard if one.hook == hook]

    @hookimpl
    def status_changed(self, execution: ExecutionRecord, update: StatusUpdate) -> None:
        self.heard.append(Heard("status_changed", execution, update))

    @hookimpl
    def asset_registered(self, execution: ExecutionRecord, asset: StagedAsset) -> None:
        self.heard.append(Heard("asset_registered", execution, asset))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionRecord, report: UploadReport) -> None:
        self.heard.append(Heard("outputs_uploaded", execution, report))
