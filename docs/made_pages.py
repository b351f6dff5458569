"""Generated pages: the command line, and pages that are elsewhere in the repository."""

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
"""Pages, and their files in the repository."""

INTRODUCTION = """\
# The command line

`deriva-ml` lists, shows, compares, verifies, uploads and reproduces recorded runs. `deriva-ml-run` and
`deriva-ml-run-notebook` start runs. This page is generated from the help of the commands.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; mkdocs calls this function after it has collected the others."""
    root = Path(str(config.config_file_path)).parent
    for page, file in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(root / file)))
    files.append(File.generated(config, "command-line.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Insert the table of options and files of the repository; mkdocs calls this function for each page."""
    root = Path(str(config.config_file_path)).parent
    markdown = re.sub(r"<!-- the file (\S+) -->", lambda file: f"```\n{(root / file[1]).read_text()}```", markdown)
    return markdown.replace("<!-- options of a training -->", training_options())


def training_options() -> str:
    """Return a table of the training options with their defaults, from the docstring of their class."""
    (listed,) = re.findall(r"^Args:\n(.*)", inspect.cleandoc(TrainingOptions.__doc__ or ""), re.MULTILINE | re.DOTALL)
    meanings = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", listed, re.MULTILINE | re.DOTALL)
    rows = ["| option | |", "|---|---|"]
    for name, meaning in meanings:
        field, meaning = TrainingOptions.model_fields[name], " ".join(meaning.replace("``", "`").split())
        choices = re.findall(r"'(\S+?)'", "".join(re.findall(r"Literal\[(.*?)\]", repr(field.annotation))))
        undocumented = [f'`"{choice}"`' for choice in choices if f'"{choice}"' not in meaning]
        note = f" One of {', '.join(undocumented)}." if len(undocumented) == len(choices) > 0 else ""
        rows.append(f"| `{name}={field.default!r}` | {meaning}{note} |")
    return "\n".join(rows)


def command_line() -> str:
    """Return the page of the command line."""
    root = get_command(app)
    return INTRODUCTION + "\n".join([*_section("deriva-ml", root, level=2), *_sections(), *_runners()])


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
    process = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})  # noqa: S603
    yield f"### deriva-ml-run\n\n```\n{process.stdout.rstrip()}\n```\n"


def _section(line: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {line}\n"
    yield f"{_escaped(command.help)}\n"
    context = command.make_context(line, [], resilient_parsing=True)
    yield f"```\n{line} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [param.get_help_record(context) for param in command.params]
    yield "| | |\n|---|---|"
    for option, meaning in filter(None, records):
        yield f"| `{option}` | {_escaped(meaning)} |"
    yield ""
    _, heading, examples = (command.epilog or "").partition("Examples:")
    if heading:
        yield "\n".join(["```bash", *(line.strip() for line in examples.splitlines() if line.strip()), "```"]) + "\n"
    elif command.epilog:
        yield f"{_escaped(command.epilog)}\n"


def _escaped(text: str) -> str:
    """Escape the special characters of Markdown, except for code in backquotes."""
    return re.sub(r"`[^`]*`|[<>|*_\\]", lambda match: match[0] if len(match[0]) > 1 else f"&#{ord(match[0])};", text)
