"""What a command line asks hydra for: one job, or a sweep of how many, and the configuration that its first job has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from deriva_ml_core.runner.configs import CONFIG_GROUPS
from deriva_ml_core.runner.hydra_files import config_choices
from deriva_ml_core.runner.run_model import run_model

__all__ = ["BASIC_SWEEPER", "JOB_NAME", "HYDRA_VERSION_BASE", "Plan", "make_plan"]

HYDRA_VERSION_BASE = "1.3"
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
        job_count: How many jobs a sweep has; None where its sweeper decides that as it goes.
        sweep_overrides: The overrides that have several values.
        overrides: All overrides.
    """

    config: DictConfig
    hydra: DictConfig
    is_sweep: bool
    job_count: int | None = 1
    sweep_overrides: tuple[str, ...] = ()
    overrides: tuple[str, ...] = field(default=())


def make_plan(folder: Path, config_name: str, overrides: Sequence[str], *, multirun: bool) -> Plan:
    """See what a command line asks for; nothing is begun.

    Args:
        folder: The folder of configs, absolute.
        config_name: The main configuration.
        overrides: As the command line has them.
        multirun: Whether the command line asks for several jobs; a configuration may do so too.

    Raises:
        CompactHydraException: A config, a group or a key does not exist, or an override cannot be read.
    """
    given = [*overrides]
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=HYDRA_VERSION_BASE):
        whole = _compose_first_job(config_name, given)
        sweeper = whole.hydra.sweeper
        is_sweep = multirun or whole.hydra.mode is RunMode.MULTIRUN
        if is_sweep and sweeper.get("params"):
            given = [*(f"{key}={values}" for key, values in sweeper.params.items()), *given]
            whole = _compose_first_job(config_name, given)
        parsed = _parse_overrides(given)
        swept = [each for each in parsed if each.is_sweep_override()]
        jobs = _count_jobs(swept) if sweeper._target_ == BASIC_SWEEPER else None
    config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    _reject_unused_keys(parsed, config, whole.hydra)
    return Plan(
        config=config,
        hydra=whole.hydra,
        is_sweep=is_sweep,
        job_count=jobs,
        sweep_overrides=tuple(str(each.input_line) for each in swept),
        overrides=tuple(overrides),
    )


def _reject_unused_keys(overrides: Sequence[Override], config: DictConfig, hydra: DictConfig) -> None:
    """Refuse ``+group=name`` of a group that is not there: hydra takes it for a new key, which nothing would use."""
    text = OmegaConf.to_yaml(config)
    known = config_choices(hydra)
    for each in overrides:
        key = each.key_or_group
        is_new = each.is_add() and "." not in key and key not in {*known, *signature(run_model).parameters}
        if is_new and f"${{{key}" not in text:
            raise ConfigCompositionException(
                f"{each.input_line}: there is no group of configs {key!r}, and nothing in the configuration uses a key "
                f"of that name. The groups are {', '.join(sorted({*CONFIG_GROUPS, *known}))}, and what "
                f"--list-configs shows."
            )


def _compose_first_job(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of the first job."""
    parsed = _parse_overrides(overrides)
    try:
        return compose(config_name, [_select_first_value(each) for each in parsed], return_hydra_config=True)
    except ConfigCompositionException as error:
        raise ConfigCompositionException(f"{error}{_describe_unknown_groups(parsed)}") from error.__cause__


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()  # without which nobody knows the configs that glob(*) means
    return OverridesParser.create(config_loader=loader).parse_overrides([*overrides])


def _describe_unknown_groups(overrides: Sequence[Override]) -> str:
    """Which overrides name groups that are not there: hydra first complains of what they would have chosen."""
    groups = GlobalHydra.instance().config_loader().list_groups("")
    known = {*groups, *signature(run_model).parameters}
    keys = {each.key_or_group for each in overrides if not each.is_delete()}
    unknown = sorted(key for key in keys if not {".", "/"}.intersection(key) and key not in known)
    return "".join(f"\nThere is no group of configs {key!r}; there is {', '.join(sorted(groups))}." for key in unknown)


def _select_first_value(override: Override) -> str:
    """An override with its first value alone."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return line
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _count_jobs(sweep_overrides: Sequence[Override]) -> int | None:
    if not all(each.is_discrete_sweep() for each in sweep_overrides):
        return None
    return math.prod(sum(1 for _ in each.sweep_string_iterator()) for each in sweep_overrides)
