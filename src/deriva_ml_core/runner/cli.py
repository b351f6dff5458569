"""``deriva-ml-run``: run a model function from a project's configs, with Hydra's command line."""

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

from deriva_ml_core._lazy import require_extra
from deriva_ml_core._progress import replace_missing_streams
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
Run a model function from the project's configs and record it as an execution.

Choose a config with GROUP=NAME and a preset with +experiment=NAME. Set a single value with a.b=VALUE.
"""

EXAMPLES = """\
examples:
  deriva-ml-run workflow=resnet_training model_config=resnet
  deriva-ml-run +experiment=digits_cnn model_config.epochs=5
  deriva-ml-run --multirun +experiment=digits_cnn model_config.rate=0.1,0.01
  deriva-ml-run --multirun hydra/launcher=joblib +experiment=digits_cnn model_config.rate=0.1,0.01
  deriva-ml-run --cfg job +experiment=digits_cnn
  deriva-ml-run --list-configs

exit codes: 0 success; 1 a run failed; 2 usage or configuration error; 130 interrupted by Ctrl-C
"""


def main() -> int:
    """Run the command line of this process.

    Returns:
        The exit code: 0 for success, 1 if a run failed, 2 for an error in the command line or a configuration, 130
        after Ctrl-C.
    """
    replace_missing_streams()
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
        return _report_error("Interrupted by Ctrl-C.", EXIT_INTERRUPTED)


def _dispatch(arguments: Namespace, parser: ArgumentParser) -> int:
    from deriva_ml_core.runner.configs import find_config_folder, load_config_folder
    from deriva_ml_core.runner.hydra_task import ModelTask

    if arguments.help:
        parser.print_help()
        return EXIT_OK
    actions = ("run", "multirun", "cfg", "info", "shell_completion", "list_configs", "hydra_help")
    if len([name for name in actions if getattr(arguments, name)]) > 1:
        parser.error(
            "--run, --multirun, --cfg, --info, --list-configs and the like exclude each other: pass only one of them"
        )
    if arguments.experimental_rerun is not None:
        parser.error("Hydra cannot pickle configs built by hydra-zen: use `deriva-ml reproduce RID` to repeat a run")
    config_dir = arguments.config_dir
    folder = find_config_folder(config_dir)
    load_config_folder(folder)
    if arguments.list_configs:
        print_configs(folder, arguments.config_name)
        return EXIT_OK
    arguments.config_dir, arguments.config_path = str(folder), None  # Hydra requires both attributes
    arguments.overrides.extend(_option_overrides(arguments))
    task = ModelTask(_base_command(arguments, config_dir))
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
            finally:  # reports the outcome after Ctrl-C too
                sys.stdout.write(f"Sweep {sweep.info.parent}: {sweep.outcome}\n")
            return code or (EXIT_OK if sweep.is_complete else EXIT_FAILED)
    except CompactHydraException as error:
        return _report_error(_format_error(error), _exit_code(error))


def _call_hydra(arguments: Namespace, parser: ArgumentParser, task: ModelTask) -> int:
    """Run Hydra's application, as its own ``main`` does.

    Returns:
        0, or the exit code for the error that Hydra printed.
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
    except CompactHydraException as error:  # raised outside the calls that Hydra guards
        return _report_error(_format_error(error), _exit_code(error))
    return EXIT_OK


def _format_error(error: Exception) -> str:
    """Return the message of an error, with its cause if Hydra left that out."""
    cause = str(error.__cause__ or "").partition("\n")[0]
    return str(error) if cause in str(error) else f"{error}: {cause}"


def _exit_code(error: Exception) -> int:
    """Return the exit code for an error that Hydra reports in one line; most are errors of the caller."""
    from deriva_ml_core.errors import CatalogUnavailable, MissingFiles, StoreUnavailable, UploadFailed

    failures = (CatalogUnavailable, StoreUnavailable, UploadFailed, MissingFiles)
    return EXIT_FAILED if isinstance(error.__cause__, failures) else EXIT_USAGE


def _build_parser() -> ArgumentParser:
    """Return Hydra's own parser, extended by five options."""
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
    parser.add_argument("--help", "-h", action="store_true", help="Show this message and exit")
    parser.add_argument(
        "--shell-completion",
        "-sc",
        action="store_true",
        help="Install or remove shell completion, with install=bash or uninstall=bash",
    )
    parser.add_argument("--experimental-rerun", help=SUPPRESS)
    parser.add_argument(
        "--config-name", "-cn", default=MAIN_CONFIG, metavar="NAME", help="Name of the main config (deriva_model)"
    )
    _add_own_options(parser.add_argument_group("catalog and configs"))
    return parser


def _add_own_options(group: _ArgumentGroup) -> None:
    """Add the options that Hydra lacks, and its option for the config folder with a wider meaning."""
    from pathlib import Path

    group.add_argument(
        "--config-dir",
        "-cd",
        "--config-path",
        "-cp",
        type=Path,
        metavar="FOLDER",
        help="Folder of the project's configs: Python modules that store them, or Hydra's YAML files (src/configs or "
        "configs in the current folder)",
    )
    group.add_argument("--list-configs", action="store_true", help="List the config groups and their configs, and exit")
    group.add_argument(
        "--host", metavar="HOST", help="Server of the catalog, or file:<folder>; overrides deriva_ml.hostname"
    )
    group.add_argument("--catalog", metavar="ID", help="Catalog ID on the server; overrides deriva_ml.catalog_id")
    group.add_argument(
        "--console", action="store_true", help="Keep what each run prints, as console.txt; overrides console"
    )


def _option_overrides(arguments: Namespace) -> list[str]:
    """Return --host, --catalog and --console as Hydra overrides."""
    values = {"hostname": arguments.host, "catalog_id": arguments.catalog}
    named = [f"++deriva_ml.{key}={quote_override_value(value)}" for key, value in values.items() if value is not None]
    return [*named, *(["++console=true"] if arguments.console else [])]


def _base_command(arguments: Namespace, folder: Path | None) -> tuple[str, ...]:
    """Return the start of the command line for a single job: the program and the options that select the configs."""
    config_dir = () if folder is None else ("--config-dir", str(folder))
    config_name = () if arguments.config_name == MAIN_CONFIG else ("--config-name", arguments.config_name)
    return (sys.argv[0], *config_dir, *config_name)


def _report_error(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


HYDRA_GROUP = "hydra"


def print_configs(folder: Path, main_config: str) -> None:
    """Print the config groups and their configs; a star marks the default of a group.

    Args:
        folder: The absolute path of the config folder.
        main_config: The name of the main config.
    """
    with initialize_config_dir(str(folder), job_name=JOB_NAME, version_base=HYDRA_VERSION_BASE):
        groups = dict(_iter_groups(GlobalHydra.instance().config_loader(), ""))
    width = max(map(len, groups), default=0)
    lines = [f"Configs in {folder}; main config: {main_config}; * marks the default.", ""]
    for group, names in sorted(groups.items(), key=lambda item: ([*CONFIG_GROUPS, item[0]].index(item[0]), item[0])):
        marked = (f"{name}*" if name == CONFIG_GROUPS.get(group) else name for name in names)
        lines.append(f"  {group:{width}}  {', '.join(marked)}")
    lines += ["", "Choose a config with GROUP=NAME, or with +GROUP=NAME if the group has no default."]
    sys.stdout.write("\n".join(lines) + "\n")


def _iter_groups(loader: ConfigLoader, parent: str) -> Iterator[tuple[str, list[str]]]:
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group == HYDRA_GROUP:
            continue
        if names := loader.get_group_options(group, ObjectType.CONFIG):
            yield group, names
        yield from _iter_groups(loader, group)
