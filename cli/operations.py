"""What the operator's commands share: where the workers meet, which store holds the conversations, who looks."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from cli.console import say
from cli.demo_data import demo_dir, running_demo
from cli.environment import environment, is_production
from core.overview import overview
from core.settings import SettingsError, read_settings
from services import log as logs
from services.admin_seat import page_facts
from services.siblings import ask_all_sync
from services.sql_store import SqlStore
from services.store import Store, StoreError
from services.supabase_client import open_data_client, open_http
from services.supabase_store import SupabaseStore

T = TypeVar("T")

SESSION_IDS = ("conversation_id", "connection_id", "call_sid")

SHORTEST = 8
"""Characters of an id that are enough to name one session: what `./voice top` shows of it."""

LOG_FILES = ("combined.log", "error.log")

ASK_S = 2.0
"""A worker answers from memory; one that takes longer is too busy to be waited for."""


class CannotLook(Exception):
    """Raised when there is nothing to look at; the text says why, and what to do."""


def run_dir(state_dir: str | None = None) -> Path:
    """Return the folder where the workers meet: of STATE_DIR as given, of the running demo, or of the settings."""
    if state_dir is not None:
        return Path(state_dir) / "run"
    if running_demo():
        return demo_dir() / "run"
    variables = environment()
    default = "/var/lib/websocket-voice-server" if is_production(variables) else "./data"
    return Path(variables.get("STATE_DIR", "").strip() or default) / "run"


def log_dir() -> Path:
    """Return the folder of the log files, by the settings."""
    variables = environment()
    default = "/var/log/websocket-voice-server" if is_production(variables) else "./logs"
    return Path(variables.get("LOG_DIR", "").strip() or default)


def look(state_dir: str | None = None) -> dict[str, Any]:
    """Return all workers of this machine as one server (`core.overview`).

    Raises:
        CannotLook: If no worker answers.
    """
    parts = {name: part for name, part in _answers("GET", "/sessions", state_dir).items() if isinstance(part, dict)}
    if not parts:
        raise CannotLook("no server answers on this machine. Start one: ./voice demo, or ./voice serve")
    return overview(dict(sorted(parts.items())))


def live_session(asked: str, state_dir: str | None = None) -> dict[str, Any] | None:
    """Return everything about a live session; it holds what was said.

    Args:
        asked: Id of the conversation, of its connection or of its call, or the beginning of one.
        state_dir: STATE_DIR of the server.

    Returns:
        None when no session here has that id, or when several begin so.
    """
    try:
        rows = look(state_dir)["sessions"]
        ids = {row["conversation_id"] for row in rows if any(names(str(row[n]), asked) for n in SESSION_IDS)}
        if len(ids) != 1:
            return None
        found = _answers("GET", f"/sessions/{ids.pop()}", state_dir)
    except CannotLook:
        return None
    return next(({**part, "worker": name} for name, part in found.items() if isinstance(part, dict)), None)


def names(whole: str, asked: str) -> bool:
    """Return whether an id is the one asked for, which may be its beginning as `./voice top` shows it."""
    return whole == asked or (len(asked) >= SHORTEST and whole.startswith(asked))


def admin_url(state_dir: str | None = None) -> str | None:
    """Return the address of the operator's page with its key, None when no process shows it."""
    url = page_facts(run_dir(state_dir)).get("url")
    return url if isinstance(url, str) else None


def _answers(method: str, path: str, state_dir: str | None) -> dict[str, Any]:
    folder = run_dir(state_dir)
    try:
        answers = ask_all_sync(folder, method, path, timeout_s=ASK_S)
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise CannotLook(f"{folder} belongs to another user; look as that one: sudo -u voicegw ./voice …") from None
    except OSError as error:
        raise CannotLook(f"{folder} cannot be read ({type(error).__name__})") from None
    return {name: answer.json() for name, answer in answers.items()}


def with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    """Return what `work` finds in the store: the running demo's, else that of the settings. Nothing is migrated.

    Raises:
        CannotLook: If the settings are incomplete or the database does not answer.
    """
    try:
        return asyncio.run(_with_store(work))
    except SettingsError as error:
        raise CannotLook("mend these settings: " + "; ".join(error.problems)) from None
    except (StoreError, ValueError) as error:
        raise CannotLook(f"the database cannot be read: {error}") from None


async def _with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    async with open_http() as http:
        store: Store
        settings = None if _demo_url() else read_settings(environment())
        url = _demo_url() or (settings.database_url if settings else None)
        if url is not None:
            store = SqlStore.open(url)
        else:
            assert settings is not None and settings.supabase_url  # read_settings asks for one of the two
            store = SupabaseStore(open_data_client(settings.supabase_url, settings.supabase_service_key or "", http))
        try:
            return await work(store)
        finally:
            await store.close()


def _demo_url() -> str | None:
    """Return the address of the running demo's database, None when there is none or it is Supabase's."""
    file = demo_dir().resolve() / "demo.db"
    return f"sqlite:///{file}" if running_demo() and file.exists() else None


def audit(event: str, **fields: Any) -> None:
    """Write a line that says which user of this machine did what; where the log cannot be written, say so."""
    folder = log_dir()
    missing = [path for name in LOG_FILES if not (path := folder / name).exists()]
    try:
        logs.configure(
            log_dir=str(folder), level="info", environment="development", workers=1, console=False, own_rotation=False
        )
        if os.geteuid() == 0:  # what root made here the server must be able to write to
            owner = folder.stat()
            for path in missing:
                os.chown(path, owner.st_uid, owner.st_gid)
        logs.log.info(event, audit=True, operator=f"command line, {getpass.getuser()}", **fields)
    except OSError as error:
        say(f"no audit line could be written to {folder} ({type(error).__name__})")
    finally:
        logs.shutdown()
