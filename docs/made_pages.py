"""mkdocs hook: builds the command-line page and llms.txt, and adds pages of other folders of the repository."""

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

PAGES_OF_OTHER_FOLDERS = {
    "executions.md": "tests/document/executions.md",
    "plugins/README.md": "plugins/README.md",
    "plugins/deriva-ml-jsonl/README.md": "plugins/deriva-ml-jsonl/README.md",
    "plugins/deriva-ml-jsonl/pyproject.toml": "plugins/deriva-ml-jsonl/pyproject.toml",
}
"""The path among the pages, and the path in the repository."""

INTRODUCTION = """\
# The command line

`deriva-ml` reads, compares, checks, completes and reproduces recorded runs. `deriva-ml-run` and
`deriva-ml-run-notebook` create runs. This page is generated from the commands; `--help` prints the same text.

"""

HELP_WIDTH = 80
"""Columns of a help text on the page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls this after it has collected all others."""
    root = Path(str(config.config_file_path)).parent
    for page, file in PAGES_OF_OTHER_FOLDERS.items():
        files.append(File.generated(config, page, abs_src_path=str(root / file)))
    files.append(File.generated(config, "command-line.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Replace placeholders with the table of options or a file of the repository; mkdocs calls this for each page."""
    root = Path(str(config.config_file_path)).parent
    text = re.sub(
        r"<!-- the file (\S+) -->",
        lambda match: f"```\n{(root / match[1]).read_text()}```",
        markdown,
    )
    return text.replace("<!-- options of a training -->", training_options())


def on_env(env: Any, config: MkDocsConfig, files: Files) -> Any:
    """Add ``llms.txt``; mkdocs calls this when the titles and texts of all pages are known."""
    files.append(
        File.generated(config, "llms.txt", content=list_pages(config, files))
    )
    return env


def list_pages(config: MkDocsConfig, files: Files) -> str:
    """Return the list of pages for language models, in the form of https://llmstxt.org: titles with a sentence each."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    pages, sections = _split_nav(config.nav or [])
    for title, names in [("Pages", pages), *sections]:
        lines += ["", f"## {title}", ""]
        for name in names:
            file = files.get_file_from_path(name)
            if file is not None and file.page is not None:
                sentence = first_sentence(file.page.markdown or "")
                lines.append(f"- [{file.page.title}]({file.url}): {sentence}")
    return "\n".join(lines) + "\n"


def _split_nav(nav: list[Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the pages of a navigation that are in no section, and the sections with theirs."""
    pages: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    for entry in nav:
        if isinstance(entry, str):
            pages.append(entry)
            continue
        for title, content in entry.items():
            inner, deeper = _split_nav(content)
            sections += [(title, inner), *deeper]
    return pages, sections


def first_sentence(markdown: str) -> str:
    """Return the first sentence of a page's first paragraph, without Markdown."""
    text = re.sub(r"<!--.*?-->|```.*?```", "", markdown, flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip() and not re.match(
            r"\s*(#|:::|!\[|\||[-*] |\d+\. )", paragraph
        ):
            plain = re.sub(
                r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split())
            )
            plain = re.sub(r"[`*]", "", plain)
            return re.split(r"(?<=[.:])\s", plain, maxsplit=1)[0]
    return ""


def training_options() -> str:
    """Return a table of `TrainingOptions` with defaults and descriptions, from its docstring."""
    (section,) = re.findall(
        r"^Args:\n(.*)",
        inspect.cleandoc(TrainingOptions.__doc__ or ""),
        re.MULTILINE | re.DOTALL,
    )
    descriptions = re.findall(
        r"^    (\w+): (.*?)(?=^    \w|\Z)", section, re.MULTILINE | re.DOTALL
    )
    rows = ["| option | description |", "|---|---|"]
    for name, description in descriptions:
        field, text = (
            TrainingOptions.model_fields[name],
            " ".join(description.replace("``", "`").split()),
        )
        values = re.findall(
            r"'(\S+?)'",
            "".join(re.findall(r"Literal\[(.*?)\]", repr(field.annotation))),
        )
        missing = [f'`"{value}"`' for value in values if f'"{value}"' not in text]
        choice = (
            f" One of {', '.join(missing)}."
            if len(missing) == len(values) > 0
            else ""
        )
        rows.append(f"| `{name}={field.default!r}` | {text}{choice} |")
    return "\n".join(rows)


def command_line() -> str:
    """Return the page of the command line."""
    whole = get_command(app)
    return INTRODUCTION + "\n".join(
        [*_section("deriva-ml", whole, level=2), *_commands(), *_runners()]
    )


def _commands() -> Iterator[str]:
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
    command = [
        sys.executable,
        "-c",
        "from deriva_ml_core.runner.cli import main; main()",
        "--help",
    ]
    environ = {**os.environ, "COLUMNS": str(HELP_WIDTH)}
    done = subprocess.run(  # noqa: S603 - the command is this interpreter
        command, capture_output=True, text=True, check=True, env=environ
    )
    yield f"### deriva-ml-run\n\n```\n{_fit(done.stdout.rstrip())}\n```\n"


def _fit(text: str) -> str:
    """Break lines that are wider than the page, at a space, with the indent of the line."""
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        while (
            len(line) > HELP_WIDTH
            and (cut := line.rfind(" ", len(indent) + 1, HELP_WIDTH)) > 0
        ):
            lines.append(line[:cut])
            line = f"{indent}  {line[cut + 1 :]}"
        lines.append(line)
    return "\n".join(lines)


def _section(line: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {line}\n"
    yield f"{_escape(command.help)}\n"
    context = command.make_context(line, [], resilient_parsing=True)
    yield f"```\n{line} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [param.get_help_record(context) for param in command.params]
    yield "| option | description |\n|---|---|"
    for option, description in filter(None, records):
        yield f"| `{option}` | {_escape(description)} |"
    yield ""
    _, has_examples, examples = (command.epilog or "").partition("Examples:")
    if has_examples:
        lines = [f"$ {one.strip()}" for one in examples.splitlines() if one.strip()]
        yield "\n".join(["```console", *lines, "```"]) + "\n"
    elif command.epilog:
        yield f"{_escape(command.epilog)}\n"


def _escape(text: str) -> str:
    """Return help text as Markdown; ``code`` in backquotes stays code, other special characters are escaped."""
    return re.sub(
        r"`[^`]*`|[<>|*_\\]",
        lambda match: match[0] if len(match[0]) > 1 else f"&#{ord(match[0])};",
        text,
    )
