"""Lay out what an earlier version left on disk, as if it had been made in a test's own folder.

``record.py`` made the data with version 0.1.0 under ``/deriva-ml-v01``, on a host called ``recorder``. Both names stand
in the data. `lay_out` unpacks the data into another folder and replaces them as follows, and changes nothing else:

- In journals and leases, which are text, ``deriva-ml-v01`` becomes the folder's path, and the host and the namespace of
  process numbers become those of this machine: what was killed is known to be dead only on the machine that it ran on.
- Pickles keep their opcodes. A text in them that holds ``deriva-ml-v01`` is written again with its new length, and the
  frames, which only help to read a pickle in portions, are left out.
- Links point to the new folder. A push ledger's folder, whose name is a hash of the source catalog's name, gets the
  hash of the new name.
- What was recorded with its digest keeps its bytes: objects, bags, and the files that describe executions.
- Each file that keeps its bytes has its time, to the nanosecond: by that it is known to be unchanged.

`move_checkpoint` does the same to a checkpoint of Lightning, which needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import platform
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["lay_out", "move_checkpoint"]

DATA = Path(__file__).parent / "data/v0.1/recorded.tar.gz"
PLACE = "deriva-ml-v01"
HOST = "recorder"
NAMESPACE = "pid:[4026531836]"

REWRITTEN = ("journal.jsonl", ".lease.json", "deriva_ml_run.json")


def lay_out(folder: Path, *, same_machine: bool = True) -> None:
    """Unpack the data.

    Args:
        folder: Where to; ``home`` in it is to be the DERIVA_ML_HOME.
        same_machine: Whether this is to be the machine that the data were made on.
    """
    with tarfile.open(DATA) as archive:
        archive.extractall(folder, filter="fully_trusted")
    times: dict[str, int] = json.loads((folder / "times.json").read_text())
    for name, time in times.items():
        file = folder / name
        if file.name in REWRITTEN:
            file.write_bytes(_rewritten(file.read_bytes(), folder, same_machine=same_machine))
        elif file.suffix == ".pickle":
            file.write_bytes(b"".join(_repickled(file.read_bytes(), folder)))
        os.utime(file, ns=(time, time))
    for link in [path for path in folder.rglob("*") if path.is_symlink()]:
        target = str(link.readlink()).replace(PLACE, _place(folder))
        link.unlink()
        link.symlink_to(target)
    for ledger in [*folder.glob("*/pushed/*")]:
        ledger.rename(ledger.with_name(hashlib.sha256(f"{folder}/home/local".encode()).hexdigest()[:16]))


def move_checkpoint(file: Path, folder: Path) -> None:
    """Replace the folder's name in a checkpoint of Lightning.

    Args:
        file: The checkpoint.
        folder: Where the data are laid out.
    """
    import torch

    checkpoint = torch.load(file, weights_only=True)
    for state in checkpoint["callbacks"].values():
        state.update({name: _moved(value, folder) for name, value in state.items()})
    file.unlink()  # it may be the same file as an object
    torch.save(checkpoint, file)


def _place(folder: Path) -> str:
    return str(folder).lstrip("/")


def _moved(value: Any, folder: Path) -> Any:
    return value.replace(PLACE, _place(folder)) if isinstance(value, str) else value


def _rewritten(text: bytes, folder: Path, *, same_machine: bool) -> bytes:
    changes = {PLACE: _place(folder)}
    if same_machine:
        namespace = Path("/proc/self/ns/pid")
        changes[f'"host":"{HOST}"'] = f'"host":"{platform.node()}"'
        changes[NAMESPACE] = str(namespace.readlink()) if namespace.exists() else ""
    for old, new in changes.items():
        text = text.replace(old.encode(), new.encode())
    return text


def _repickled(pickled: bytes, folder: Path) -> Iterator[bytes]:
    """The opcodes of a pickle, the texts of some of them written again."""
    opcodes = list(pickletools.genops(pickled))
    ends = [*(position for _, _, position in opcodes[1:]), len(pickled)]
    for (opcode, argument, position), end in zip(opcodes, ends, strict=True):
        if opcode.name == "FRAME":
            continue
        if "UNICODE" in opcode.name and PLACE in argument:
            text = argument.replace(PLACE, _place(folder)).encode()
            yield b"X" + len(text).to_bytes(4, "little") + text
        else:
            yield pickled[position:end]
