"""The parent of several workers: what `python server.py` turns into when WORKERS is more than one.

It is a program of its own, under the same process id, because it serves nobody: without the server's imports it needs a
third of a worker's memory. Not a command of `./voice`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from core.settings import Settings, read_settings
from services import log as logs
from services.environment import effective_environment
from services.systemd import Systemd, status_line
from services.workers import Seat, Supervisor, open_groups

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server.py"


def main() -> int:
    """Run the workers until SIGTERM or SIGINT; returns the exit status. `server.py` has checked the settings."""
    settings = read_settings(effective_environment(ROOT / ".env", os.environ))
    logs.configure_by(settings)
    try:
        return asyncio.run(supervise(settings))
    except OSError as error:
        logs.log.error("cannot start", cause=type(error).__name__)
        print(f"The server cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        logs.shutdown()


async def supervise(settings: Settings) -> int:
    """Run the workers until SIGTERM or SIGINT, then have them drain; a second signal forces. SIGHUP: forget keys.

    To systemd this process speaks for all of them.

    Raises:
        OSError: If a port is taken.
    """
    doors_of = open_groups(settings.port, settings.host, settings.workers)
    health_of = open_groups(settings.health_port, settings.host, settings.workers)
    seats = [Seat(number, *sockets) for number, sockets in enumerate(zip(doors_of, health_of, strict=True))]
    systemd = Systemd.from_environment(os.environ, os.getpid())
    supervisor = Supervisor(
        [sys.executable, str(SERVER)], seats, drain_s=settings.drain_timeout_s, report=_log, environ=os.environ
    )

    def status() -> str:
        live = supervisor.sessions()
        counts = live.get("browser", 0), live.get("phone", 0)
        return status_line(*counts, settings.max_connections, is_draining=supervisor.is_stopping)

    def stop() -> None:
        supervisor.drain()
        systemd.stopping(status())

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, partial(systemd.reload, supervisor.forget_keys))
    return await supervisor.run(on_ready=lambda: systemd.start(status, supervisor.all_answer))


def _log(level: str, event: str, fields: Mapping[str, Any]) -> None:
    (logs.log.error if level == "error" else logs.log.info)(event, **fields)


if __name__ == "__main__":
    sys.exit(main())
