"""The pages that are not written here: one is made from the command line, others lie elsewhere in the repository."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

from deriva_ml_cli.app import COMMANDS, app
from deriva_ml_core.runner.notebook.cli import app as notebook
from deriva_ml_core.training import TrainingOptions

ELSEWHERE = {
    "executions.md": "tests/document/executions.md",
    "plugins/README.md": "plugins/README.md",
    "plugins/deriva-ml-jsonl/README.md": "plugins/deriva-ml-jsonl/README.md",
    "plugins/deriva-ml-jsonl/pyproject.toml": "plugins/deriva-ml-jsonl/pyproject.toml",
}
"""Where a page is among the pages, and in the repository."""

ABOVE = """\
# The command line

`deriva-ml` is for the time after a run: it lists, shows, compares, checks, finishes and rebuilds what was recorded.
`deriva-ml-run` and `deriva-ml-run-notebook` make runs. This page is made from the commands themselves; each says the
same with `--help`.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls this when it has found all others."""
    root = Path(str(config.config_file_path)).parent
    for page, file in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(root / file)))
    files.append(File.generated(config, "command-line.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Put the table of options, and files of the repository, where a page asks for them; mkdocs calls it for each."""
    root = Path(str(config.config_file_path)).parent
    shown = re.sub(r"<!-- the file (\S+) -->", lambda file: f"```\n{(root / file[1]).read_text()}```", markdown)
    return shown.replace("<!-- options of a training -->", training_options())


def training_options() -> str:
    """The options of a training with their defaults, as their own docstring explains them."""
    (listed,) = re.findall(r"^Args:\n(.*)", inspect.cleandoc(TrainingOptions.__doc__ or ""), re.MULTILINE | re.DOTALL)
    meanings = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", listed, re.MULTILINE | re.DOTALL)
    rows = ["| option | |", "|---|---|"]
    for name, meaning in meanings:
        field, meaning = TrainingOptions.model_fields[name], " ".join(meaning.replace("``", "`").split())
        words = re.findall(r"'(\S+?)'", "".join(re.findall(r"Literal\[(.*?)\]", repr(field.annotation))))
        unsaid = [f'`"{word}"`' for word in words if f'"{word}"' not in meaning]
        choice = f" One of {', '.join(unsaid)}." if len(unsaid) == len(words) > 0 else ""
        rows.append(f"| `{name}={field.default!r}` | {meaning}{choice} |")
    return "\n".join(rows)


def command_line() -> str:
    """The page of the command line."""
    whole = get_command(app)
    return ABOVE + "\n".join([*_section("deriva-ml", whole, level=2), *_sections(), *_runners()])


def _sections() -> Iterator[str]:
    group = ""
    for name, (panel, _) in COMMANDS.items():
        if panel != group:
            yield f"## {panel}\n"
            group = panel
        command = get_command(import_module(f"deriva_ml_cli.commands.{name}").app)
        yield from _section(f"deriva-ml {name}", command, level=3)


def _runners() -> Iterator[str]:
    yield "## Running\n"
    yield from _section("deriva-ml-run-notebook", get_command(notebook), level=3)
    command = [sys.executable, "-c", "from deriva_ml_core.runner.cli import main; main()", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})  # noqa: S603
    yield f"### deriva-ml-run\n\n```\n{said.stdout.rstrip()}\n```\n"


def _section(line: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {line}\n"
    yield f"{_escaped(command.help)}\n"
    context = command.make_context(line, [], resilient_parsing=True)
    yield f"```\n{line} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [param.get_help_record(context) for param in command.params]
    yield "| | |\n|---|---|"
    for words, meaning in filter(None, records):
        yield f"| `{words}` | {_escaped(meaning)} |"
    yield ""
    _, examples, shown = (command.epilog or "").partition("Examples:")
    if examples:
        yield "\n".join(["```bash", *(each.strip() for each in shown.splitlines() if each.strip()), "```"]) + "\n"
    elif command.epilog:
        yield f"{_escaped(command.epilog)}\n"


def _escaped(text: str) -> str:
    """Help as Markdown that shows it as it is: ``code`` in backquotes stays, all else is plain."""
    return re.sub(r"`[^`]*`|[<>|*_\\]", lambda found: found[0] if len(found[0]) > 1 else f"&#{ord(found[0])};", text)
