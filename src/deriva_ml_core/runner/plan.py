"""What a command line asks hydra for: one job, or a sweep of how many, and the configuration that its first job has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

__all__ = ["BASIC_SWEEPER", "JOB_NAME", "VERSION", "Plan", "planned"]

VERSION = "1.3"
"""The version of hydra whose habits count."""

JOB_NAME = "job"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Args:
        config: The configuration of the job, or of a sweep's first one, without hydra's node.
        hydra: Hydra's node.
        is_sweep: Whether there is to be a sweep.
        jobs: How many jobs a sweep has; None where its sweeper decides that as it goes.
        swept: The overrides that have several values.
        overrides: All overrides.
    """

    config: DictConfig
    hydra: DictConfig
    is_sweep: bool
    jobs: int | None = 1
    swept: tuple[str, ...] = ()
    overrides: tuple[str, ...] = field(default=())


def planned(folder: Path, config_name: str, overrides: Sequence[str], *, multirun: bool) -> Plan:
    """See what a command line asks for; nothing is begun.

    Args:
        folder: The folder of configs, absolute.
        config_name: The main configuration.
        overrides: As the command line has them.
        multirun: Whether the command line asks for several jobs; a configuration may do so too.

    Raises:
        CompactHydraException: A config or a key does not exist, or an override cannot be read.
    """
    given = [*overrides]
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=VERSION):
        whole = _composed(config_name, given)
        sweeper = whole.hydra.sweeper
        is_sweep = multirun or whole.hydra.mode is RunMode.MULTIRUN
        if is_sweep and sweeper.get("params"):
            given = [*(f"{key}={values}" for key, values in sweeper.params.items()), *given]
            whole = _composed(config_name, given)
    parsed = OverridesParser.create().parse_overrides(given)
    swept = [each for each in parsed if each.is_sweep_override()]
    config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    return Plan(
        config=config,
        hydra=whole.hydra,
        is_sweep=is_sweep,
        jobs=_count(swept) if sweeper._target_ == BASIC_SWEEPER else None,
        swept=tuple(str(each.input_line) for each in swept),
        overrides=tuple(overrides),
    )


def _composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of the first job."""
    first = [_first(each) for each in OverridesParser.create().parse_overrides([*overrides])]
    return compose(config_name, first, return_hydra_config=True)


def _first(override: Override) -> str:
    """An override with its first value alone."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return line
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _count(swept: Sequence[Override]) -> int | None:
    if not all(each.is_discrete_sweep() for each in swept):
        return None
    return math.prod(sum(1 for _ in each.sweep_string_iterator()) for each in swept)
