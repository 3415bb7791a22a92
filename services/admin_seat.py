"""Which process of this machine shows the operator's page, and where: one of all that share a STATE_DIR.

`{STATE_DIR}/run/admin.json` is locked by the kernel for as long as the process that shows the page lives, however it
ends. It holds the page's address, with its key, for the same user's eyes only.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "admin.json"

MAX_BYTES = 4_096
"""What is read of the file at most; an address and a process id need 200."""


class AdminSeat:
    """The right to show the page.

    Args:
        run_dir: From `services.siblings.run_folder`.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._lock: int | None = None

    def take(self) -> bool:
        """Return whether the right is this process's; False while another one has it.

        Raises:
            OSError: If the folder cannot be written.
        """
        if self._lock is not None:
            return True
        lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self.leave_word({})
        return True

    def leave_word(self, facts: Mapping[str, Any]) -> None:
        """Let `page_facts` return these facts from here on; call it only while the right is taken."""
        lock = self._lock
        assert lock is not None
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(dict(facts)).encode(), 0)

    def give_back(self) -> None:
        """Let another process have the right; does nothing when it is not taken."""
        if self._lock is not None:
            self.leave_word({})
            os.close(self._lock)
            self._lock = None


def page_facts(run_dir: Path) -> dict[str, Any]:
    """Return what the process that shows the page left word of: `url`, `pid`; empty while there is none."""
    try:
        with (run_dir / FILE).open("rb") as file:
            if not _is_locked(file.fileno()):
                return {}
            facts = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_locked(descriptor: int) -> bool:
    """Return whether a process holds the lock; a shared one is tried, which disturbs nobody who only looks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
