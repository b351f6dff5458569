"""docs/ tells the truth: each page's blocks, one after the other, are a program that runs and prints what is shown."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from page_program import run_blocks
from pages import blocks

if any(importlib.util.find_spec(name) is None for name in ("pytorch_lightning", "keras", "hydra_zen")):
    pytest.skip("pages train with Lightning and with Keras, and run by hydra-zen", allow_module_level=True)

DOCS = Path(__file__).parents[1] / "docs"

A_TRAINING = '''\
"""`model` and `data` are the reader's own: here the smallest that Lightning has."""
import logging, os, warnings

os.environ["KERAS_BACKEND"] = "torch"
from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
model, data = BoringModel(), DataLoader(RandomDataset(32, 8))
'''

PAGES = {
    "index.md": A_TRAINING,
    "quick-start.md": "",
}
"""What the reader of a page has already, as Python; a page that is not named has no block that is run."""

PARSED = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}


def test_no_page_is_left_out() -> None:
    """Each page with a block of Python or shell is run."""
    run = {page.name for page in DOCS.glob("*.md") if {"python", "bash"} & {each.language for each in blocks(page)}}
    assert run == PAGES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str, tmp_path: Path) -> None:
    """All its blocks run in order, without a warning of ours, and each prints what stands below it."""
    shown = blocks(DOCS / page)
    ran = run_blocks(shown, PAGES[page], tmp_path)
    assert ran.code == 0, ran.complaints
    assert not re.search(r"DerivaMLWarning|^warning: ", ran.complaints, re.MULTILINE), ran.complaints
    for number, block in enumerate(shown):
        if block.language == "text":
            assert masked(ran.printed[number - 1]) == masked(block.code), ran.printed[number - 1]


def masked(text: str) -> str:
    """What is printed without what differs between two runs and two machines."""
    for pattern, instead in (
        (r"\b\d-[0-9A-Z]{4}\b", "RID"),
        (r"\b[0-9a-f]{12,64}\b", "HASH"),
        (r"folder +\S+( *\n {12}\S+)*", "folder FOLDER"),
        (r"on +\S+(?=, process)", "on HOST"),
        (r"just now|\d+ \w+ ago", "AGO"),
        (r"\d+(\.\d+)*", "0"),
        (r"[▁-█]+", "▁"),
        (r"[^\S\n]+", " "),
    ):
        text = re.sub(pattern, instead, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_block_can_be_read(page: Path) -> None:
    """Each block has a language that is tested, or is only shown; one of data is data; none stands in a list."""
    known = {"", "python", "bash", "text", *PARSED}
    assert {each.language for each in blocks(page)} <= known
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))
    for each in blocks(page):
        if each.language in PARSED:
            PARSED[each.language](each.code)
