"""The lock between threads: a forked child does not wait for a thread that it does not have."""

from __future__ import annotations

import os
from threading import Event, Thread

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock


def test_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    """A lock that another thread held during the fork is free in the child, and still held in the parent."""
    lock, is_held, is_done = ForkSafeRLock(), Event(), Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_done.wait()

    thread = Thread(target=hold)
    thread.start()
    is_held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=0) and lock.acquire(timeout=0) else 1)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not lock.acquire(timeout=0)
    finally:
        is_done.set()
        thread.join()
    assert lock.acquire(timeout=0)
