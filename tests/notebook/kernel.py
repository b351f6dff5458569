"""A kernel for tests of what notebooks show, with the messages that its cells send."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec

__all__ = ["CellResult", "Kernel", "start_kernel"]

TIMEOUT = 600
"""Maximum seconds for a cell on a busy machine."""


@dataclass
class CellResult:
    """What a cell sent.

    Args:
        displays: The content by MIME type of each output of the display system and of its updates, in order.
        text: What it printed.
        error: Its traceback; empty if it ended without an error.
        updates: The number of updates among the displays.
    """

    displays: list[dict[str, str]] = field(default_factory=list)
    text: str = ""
    error: str = ""
    updates: int = 0


class Kernel:
    """A running kernel.

    Args:
        client: Its client.
    """

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client

    def run(self, code: str) -> CellResult:
        """Run a cell and return what it sent; a result of its last expression is a display too."""
        result = CellResult()

        def read(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
                result.displays.append(content["data"])
                result.updates += message["msg_type"] == "update_display_data"
            elif message["msg_type"] == "stream":
                result.text += content["text"]
            elif message["msg_type"] == "error":
                result.error = "\n".join(content["traceback"])

        self._client.execute_interactive(code, timeout=TIMEOUT, output_hook=read, allow_stdin=False)
        return result


@contextmanager
def start_kernel() -> Iterator[Kernel]:
    """Start a kernel with this interpreter, and stop it at the end of the block."""
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="", language="python"
    )
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
