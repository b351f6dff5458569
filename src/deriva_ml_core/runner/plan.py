"""Work out from a command line whether Hydra runs one job or a sweep, and compose the first job's configuration."""

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
from deriva_ml_core.runner.model_run import run_model

__all__ = ["BASIC_SWEEPER", "JOB_NAME", "HYDRA_VERSION_BASE", "Plan", "make_plan"]

HYDRA_VERSION_BASE = "1.3"
"""Hydra's version base, which selects its default behaviour."""

JOB_NAME = "job"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Plan:
    """What a command line asks for.

    Args:
        config: The configuration of the job, or of the first job of a sweep, without Hydra's node.
        hydra: Hydra's node.
        is_sweep: Whether the command line asks for a sweep.
        job_count: The number of jobs in a sweep; None if its sweeper decides that while it runs.
        sweep_overrides: The overrides with several values.
        overrides: All overrides.
    """

    config: DictConfig
    hydra: DictConfig
    is_sweep: bool
    job_count: int | None = 1
    sweep_overrides: tuple[str, ...] = ()
    overrides: tuple[str, ...] = field(default=())


def make_plan(folder: Path, config_name: str, overrides: Sequence[str], *, multirun: bool) -> Plan:
    """Compose the configuration that a command line asks for, without running anything.

    Args:
        folder: The absolute path of the config folder.
        config_name: The name of the main config.
        overrides: The overrides of the command line.
        multirun: Whether the command line asks for a sweep; a configuration can ask for one too.

    Returns:
        The plan.

    Raises:
        CompactHydraException: A config, a group or a key does not exist, or an override is malformed.
    """
    all_overrides = [*overrides]
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=HYDRA_VERSION_BASE):
        composed = _compose_first_job(config_name, all_overrides)
        sweeper = composed.hydra.sweeper
        is_sweep = multirun or composed.hydra.mode is RunMode.MULTIRUN
        if is_sweep and sweeper.get("params"):
            all_overrides = [*(f"{key}={values}" for key, values in sweeper.params.items()), *all_overrides]
            composed = _compose_first_job(config_name, all_overrides)
        parsed = _parse_overrides(all_overrides)
        sweep_overrides = [override for override in parsed if override.is_sweep_override()]
        job_count = _count_jobs(sweep_overrides) if sweeper._target_ == BASIC_SWEEPER else None
    config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    _reject_unused_keys(parsed, config, composed.hydra)
    return Plan(
        config=config,
        hydra=composed.hydra,
        is_sweep=is_sweep,
        job_count=job_count,
        sweep_overrides=tuple(str(override.input_line) for override in sweep_overrides),
        overrides=tuple(overrides),
    )


def _reject_unused_keys(overrides: Sequence[Override], config: DictConfig, hydra: DictConfig) -> None:
    """Reject ``+group=name`` for an unknown group: Hydra would add a new key that nothing uses."""
    text = OmegaConf.to_yaml(config)
    groups = config_choices(hydra)
    for override in overrides:
        key = override.key_or_group
        is_new = override.is_add() and "." not in key and key not in {*groups, *signature(run_model).parameters}
        if is_new and f"${{{key}" not in text:
            raise ConfigCompositionException(
                f"{override.input_line}: there is no config group {key!r}, and the configuration uses no key of that "
                f"name. Groups: {', '.join(sorted({*CONFIG_GROUPS, *groups}))}. --list-configs lists all of them."
            )


def _compose_first_job(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the first job's configuration, including Hydra's node."""
    parsed = _parse_overrides(overrides)
    try:
        first = [_select_first_value(override) for override in parsed]
        return compose(config_name, first, return_hydra_config=True)
    except ConfigCompositionException as error:
        raise ConfigCompositionException(f"{error}{_describe_unknown_groups(parsed)}") from error.__cause__


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()  # the parser needs it to expand glob(*)
    return OverridesParser.create(config_loader=loader).parse_overrides([*overrides])


def _describe_unknown_groups(overrides: Sequence[Override]) -> str:
    """Describe the unknown groups among overrides; Hydra's own error is about what they would have chosen."""
    groups = GlobalHydra.instance().config_loader().list_groups("")
    valid = {*groups, *signature(run_model).parameters}
    keys = {override.key_or_group for override in overrides if not override.is_delete()}
    unknown = sorted(key for key in keys if not {".", "/"}.intersection(key) and key not in valid)
    return "".join(f"\nThere is no config group {key!r}. Groups: {', '.join(sorted(groups))}." for key in unknown)


def _select_first_value(override: Override) -> str:
    """Return an override with only the first of its values."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return line
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _count_jobs(sweep_overrides: Sequence[Override]) -> int | None:
    if not all(override.is_discrete_sweep() for override in sweep_overrides):
        return None
    return math.prod(sum(1 for _ in override.sweep_string_iterator()) for override in sweep_overrides)
