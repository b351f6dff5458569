"""Locks of the names of objects, between the threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid

__all__ = ["NameLocks"]


class NameLocks:
    """Locks that let one thread at a time upload a name, or the first object of a namespace."""

    def __init__(self) -> None:
        self._existing_namespaces: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self._pid = getpid()
        self._condition = threading.Condition()
        self._locked_names: set[str] = set()

    @contextmanager
    def lock(self, namespace: str | None, path: str) -> Iterator[None]:
        """Lock a name, and also its namespace until that is known to exist.

        Args:
            namespace: The namespace; None if the store creates none.
            path: The name.
        """
        if getpid() != self._pid:  # a forked process may have inherited the lock locked
            self._reset()
        with self._condition:
            while {path, *self._unknown_namespaces(namespace)} & self._locked_names:
                self._condition.wait()
            taken = {path, *self._unknown_namespaces(namespace)}
            self._locked_names |= taken
        try:
            yield
        finally:
            with self._condition:
                self._locked_names -= taken
                self._condition.notify_all()

    def _unknown_namespaces(self, namespace: str | None) -> set[str]:
        return set() if namespace is None else {namespace} - self._existing_namespaces

    def add_namespace(self, namespace: str) -> None:
        """Note that a namespace exists."""
        self._existing_namespaces.add(namespace)
