"""`./voice serve --watch`: the server as a child process that is started anew when its files change.

For development: the drain is short, so a page that talks reconnects by itself. Only files of this folder are watched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cli.console import say

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("core", "services", "handlers")
"""Where the server's code lies; the web's files are read anew by each request."""

LOOK_S = 0.5
"""Between two looks at the files: a person does not notice it, and a look at 120 files takes about 1 ms."""

DRAIN_S = "2"
"""DRAIN_TIMEOUT of the child unless the user set one: long enough for the notice that tells clients to reconnect."""

STOP_S = 15.0
"""A stop takes the drain, and up to 10 s for transcripts (operations reference, section 5); then it is killed."""

BAD_SETTINGS = 78
"""Exit status of the server when settings are wrong. Source: sysexits.h, EX_CONFIG."""

Stamps = Mapping[Path, tuple[int, int]]
"""Time of the last change in ns, and size, of each watched file."""


def stamps(root: Path) -> Stamps:
    """Return what is watched: the code's *.py, `server.py` and `.env`, as they are at this moment."""
    files = [root / "server.py", root / ".env"]
    for folder in FOLDERS:
        files += (root / folder).rglob("*.py")
    found = {}
    for file in files:
        try:
            seen = file.stat()
        except OSError:  # .env need not be there; an editor may just be replacing a file
            continue
        found[file] = (seen.st_mtime_ns, seen.st_size)
    return found


def changed(before: Stamps, after: Stamps) -> list[Path]:
    """Return the files that are new, gone or different, in order."""
    return sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))


class Watcher:
    """Runs one child and starts it anew on changes.

    Args:
        command: What to run; `python server.py` in the product.
        root: Folder whose files are watched, and in which the child runs.
        environment: Of the child.
    """

    def __init__(self, command: list[str], root: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._root = root
        self._environment = {"DRAIN_TIMEOUT": DRAIN_S, **environment}
        self._child: subprocess.Popen[bytes] | None = None
        self._is_asked_to_stop = False

    def run(self) -> int:
        """Run until `stop`; returns 0.

        A child that ends by itself, as with an error in the code or in the settings, is started again at the next
        change and not before.
        """
        seen = stamps(self._root)
        self._start()
        has_ended = False
        while not self._is_asked_to_stop:
            time.sleep(LOOK_S)
            status = self._child.poll() if self._child is not None else None
            if status is not None and not has_ended and not self._is_asked_to_stop:
                has_ended = True
                why = "settings" if status == BAD_SETTINGS else f"status {status}"
                say(f"voice serve: the server ended ({why}); it starts again when a file changes")
            now = stamps(self._root)
            files = changed(seen, now)
            if not files or self._is_asked_to_stop:
                continue
            seen, has_ended = self._settled(now), False
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            say(f"voice serve: {files[0].relative_to(self._root)}{more} changed, restarting")
            self._end()
            self._start()
        self._end()
        return 0

    def stop(self) -> None:
        """Let `run` end the child and return, within a look and a drain."""
        self._is_asked_to_stop = True

    def _settled(self, seen: Stamps) -> Stamps:
        """Wait until a look finds what the one before found: whoever switches branches changes many files."""
        while not self._is_asked_to_stop:
            time.sleep(LOOK_S)
            now = stamps(self._root)
            if not changed(seen, now):
                break
            seen = now
        return seen

    def _start(self) -> None:
        if self._is_asked_to_stop:
            return
        # A process group of its own: Ctrl-C reaches it through us only, so that it drains once.
        self._child = subprocess.Popen(self._command, cwd=self._root, env=self._environment, start_new_session=True)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(float(self._environment["DRAIN_TIMEOUT"]) + STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def watch() -> int:
    """Run the server until Ctrl-C or SIGTERM, started anew on changes; returns the exit status."""
    watcher = Watcher([sys.executable, "server.py"], ROOT, {**os.environ, "PYTHONUNBUFFERED": "1"})

    def on_signal(*_: object) -> None:
        watcher.stop()

    handler: Callable[..., None] = on_signal
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    say(f"voice serve: watching {', '.join(FOLDERS)}, server.py and .env; Ctrl-C stops")
    return watcher.run()
