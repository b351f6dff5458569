"""``deriva-ml-run``: a model function run from a project's configs, with the whole command line of hydra."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType

from deriva_ml_core._extras import require_extra
from deriva_ml_core.errors import DerivaMLException, MissingDependency
from deriva_ml_core.runner.configs import CONFIG_GROUPS, MAIN_CONFIG
from deriva_ml_core.runner.hydra_files import quote_override_value
from deriva_ml_core.runner.plan import HYDRA_VERSION_BASE, JOB_NAME
from deriva_ml_core.runner.subprocess_job import install_warning_format

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup

    from deriva_ml_core.runner.hydra_task import ModelTask

__all__ = ["main", "print_configs"]


EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = """\
Run the model function that a project's configs name, and record it as an execution.

Configs are chosen by GROUP=NAME, presets by +experiment=NAME, and single values are set by a.b=VALUE.
"""

EXAMPLES = """\
examples:
  deriva-ml-run workflow=resnet_training model_config=resnet
  deriva-ml-run +experiment=digits_cnn model_config.epochs=5
  deriva-ml-run --multirun +experiment=digits_cnn model_config.rate=0.1,0.01
  deriva-ml-run --multirun hydra/launcher=joblib +experiment=digits_cnn model_config.rate=0.1,0.01
  deriva-ml-run --cfg job +experiment=digits_cnn
  deriva-ml-run --list-configs

exit codes: 0 done; 1 a run failed; 2 wrong use, or a configuration that cannot be used; 130 ended by Ctrl-C
"""


def main() -> int:
    """Run the command line of this process.

    Returns:
        0 where all is done, 1 where a run failed, 2 where the command line or a configuration is wrong.
    """
    install_warning_format()
    try:
        with require_extra("run", "deriva-ml-run"):
            parser = _build_parser()
    except MissingDependency as error:
        return _report_error(str(error), EXIT_FAILED)
    arguments = parser.parse_intermixed_args()
    try:
        return _dispatch(arguments, parser)
    except DerivaMLException as error:
        return _report_error(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        return _report_error("Ctrl-C ended this.", EXIT_INTERRUPTED)


def _dispatch(arguments: Namespace, parser: ArgumentParser) -> int:
    from deriva_ml_core.runner.configs import find_config_folder, load_config_folder
    from deriva_ml_core.runner.hydra_task import ModelTask

    if arguments.help:
        parser.print_help()
        return EXIT_OK
    actions = ("run", "multirun", "cfg", "info", "shell_completion", "list_configs", "hydra_help")
    if len([name for name in actions if getattr(arguments, name)]) > 1:
        parser.error("only one of --run, --multirun, --cfg, --info, --list-configs and the like can be given")
    if arguments.experimental_rerun is not None:
        parser.error("hydra cannot keep configs that hydra-zen built: `deriva-ml reproduce RID` does a run again")
    named = arguments.config_dir
    folder = find_config_folder(named)
    load_config_folder(folder)
    if arguments.list_configs:
        print_configs(folder, arguments.config_name)
        return EXIT_OK
    arguments.config_dir, arguments.config_path = str(folder), None  # of which hydra asks for both
    arguments.overrides.extend(_catalog_overrides(arguments))
    task = ModelTask(_base_command(arguments, named))
    if any(getattr(arguments, name) for name in ("cfg", "info", "shell_completion", "hydra_help")):
        return _call_hydra(arguments, parser, task)
    return _run_jobs(arguments, parser, task, folder)


def _run_jobs(arguments: Namespace, parser: ArgumentParser, task: ModelTask, folder: Path) -> int:
    from hydra.errors import CompactHydraException

    from deriva_ml_core.runner.plan import make_plan
    from deriva_ml_core.runner.sweep import record_sweep

    try:
        plan = make_plan(folder, arguments.config_name, arguments.overrides, multirun=arguments.multirun)
        if not plan.is_sweep:
            return _call_hydra(arguments, parser, task)
        with record_sweep(plan) as sweep:
            try:
                code = _call_hydra(arguments, parser, replace(task, sweep=sweep.info))
            finally:  # also after Ctrl-C
                sys.stdout.write(f"Sweep {sweep.info.parent}: {sweep.outcome}\n")
    except CompactHydraException as error:
        return _report_error(_format_error(error), _exit_code(error))
    return code or (EXIT_OK if sweep.is_complete else EXIT_FAILED)


def _call_hydra(arguments: Namespace, parser: ArgumentParser, task: ModelTask) -> int:
    """Hand over to hydra, as its own ``main`` does.

    Returns:
        0, or what the error that hydra has printed stands for.
    """
    from hydra._internal.utils import _run_hydra
    from hydra.errors import CompactHydraException

    try:
        _run_hydra(arguments, parser, task, config_path=None, config_name=arguments.config_name)
    except SystemExit as end:
        if isinstance(end.__context__, CompactHydraException):
            return _exit_code(end.__context__)
        if end.code in (None, EXIT_OK, EXIT_FAILED):
            return int(end.code or EXIT_OK)
        raise
    except CompactHydraException as error:  # from where hydra catches none
        return _report_error(_format_error(error), _exit_code(error))
    return EXIT_OK


def _format_error(error: Exception) -> str:
    """An error's words, and those of its cause where hydra keeps back what is wrong with a value."""
    why = str(error.__cause__ or "").partition("\n")[0]
    return str(error) if why in str(error) else f"{error}: {why}"


def _exit_code(error: Exception) -> int:
    """What an error stands for that ends the command in one sentence: most are the caller's, as of a wrong name."""
    from deriva_ml_core.errors import CatalogUnavailable, MissingFiles, StoreUnavailable, UploadFailed

    ours = error.__cause__
    return (
        EXIT_FAILED
        if isinstance(ours, CatalogUnavailable | StoreUnavailable | UploadFailed | MissingFiles)
        else EXIT_USAGE
    )


def _build_parser() -> ArgumentParser:
    """Hydra's own parser with four options more."""
    from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter

    from hydra._internal.utils import get_args_parser

    parser = ArgumentParser(
        prog="deriva-ml-run",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        parents=[get_args_parser()],
        conflict_handler="resolve",
        add_help=False,
    )
    parser.add_argument("--help", "-h", action="store_true", help="Show this, and end")
    parser.add_argument(
        "--shell-completion",
        "-sc",
        action="store_true",
        help="With install=bash or uninstall=bash: complete words, or not",
    )
    parser.add_argument("--experimental-rerun", help=SUPPRESS)
    parser.add_argument(
        "--config-name", "-cn", default=MAIN_CONFIG, metavar="NAME", help="The main config; deriva_model by default"
    )
    _add_own_options(parser.add_argument_group("the catalog and the configs"))
    return parser


def _add_own_options(group: _ArgumentGroup) -> None:
    """Add what hydra's command line has not, and the folder of configs, which it has with less in it."""
    from pathlib import Path

    group.add_argument(
        "--config-dir",
        "-cd",
        "--config-path",
        "-cp",
        type=Path,
        metavar="FOLDER",
        help="The folder of the project's configs: Python modules that store them, or hydra's YAML files; by default "
        "src/configs or configs in this folder",
    )
    group.add_argument(
        "--list-configs", action="store_true", help="List the groups of configs with their configs, and end"
    )
    group.add_argument(
        "--host", metavar="HOST", help="The catalog's server, or file:<folder>, instead of deriva_ml.hostname"
    )
    group.add_argument("--catalog", metavar="ID", help="The catalog's number there, instead of deriva_ml.catalog_id")


def _catalog_overrides(arguments: Namespace) -> list[str]:
    """The catalog that the command line names, as overrides."""
    named = {"hostname": arguments.host, "catalog_id": arguments.catalog}
    return [f"++deriva_ml.{key}={quote_override_value(value)}" for key, value in named.items() if value is not None]


def _base_command(arguments: Namespace, folder: Path | None) -> tuple[str, ...]:
    """How the command line of one job begins, that is like this one."""
    named = () if folder is None else ("--config-dir", str(folder))
    main = () if arguments.config_name == MAIN_CONFIG else ("--config-name", arguments.config_name)
    return (sys.argv[0], *named, *main)


def _report_error(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


HYDRA_GROUP = "hydra"


def print_configs(folder: Path, main_config: str) -> None:
    """Write the groups of configs to standard output, each with its configs; a star marks what is taken by default.

    Args:
        folder: The folder of configs, absolute.
        main_config: The main configuration.
    """
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=HYDRA_VERSION_BASE):
        found = dict(_iter_groups(GlobalHydra.instance().config_loader(), ""))
    width = max(map(len, found), default=0)
    lines = [f"Configs of {folder}, with {main_config} as the main one; * is taken where none is named.", ""]
    for group, names in sorted(found.items(), key=lambda item: ([*CONFIG_GROUPS, item[0]].index(item[0]), item[0])):
        marked = (f"{name}*" if name == CONFIG_GROUPS.get(group) else name for name in names)
        lines.append(f"  {group:{width}}  {', '.join(marked)}")
    lines += ["", "Choose by GROUP=NAME, and by +GROUP=NAME in a group that has no default."]
    sys.stdout.write("\n".join(lines) + "\n")


def _iter_groups(loader: ConfigLoader, parent: str) -> Iterator[tuple[str, list[str]]]:
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group == HYDRA_GROUP:
            continue
        if names := loader.get_group_options(group, ObjectType.CONFIG):
            yield group, names
        yield from _iter_groups(loader, group)
