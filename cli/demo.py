"""`./voice demo`: everything on this machine, with no account and no key."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import socket
import sys
import time
import webbrowser
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from cli.console import STARTED_AT, paint, say
from cli.demo_data import DEMO_AGENTS, DEMO_FILE, DEMO_USER_ID, demo_dir
from cli.demo_phone import DemoPhone, free_port, number_of
from cli.demo_project import DemoProject
from cli.local_postgres import LocalServerError
from core.calls import PhoneNumber
from core.settings import Settings, SettingsError, read_settings
from server import Server, run, start
from services import log as logs
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore
from simulator.openai import RealtimeSimulator

TOKEN_S = 12 * 3600
"""Life of the demo's token: a working day."""

SIMULATOR_KEY = "sk-" + "the-simulator-takes-any-key"  # of a key's shape, as the Vault demands; opens nothing

OPENAI_URL = "wss://api.openai.com/v1/realtime"

TAKEN_OVER = (
    "LOG_LEVEL", "LOG_DIR", "DEBUG", "MAX_CONNECTIONS", "MAX_SESSIONS_PER_USER", "CONNECTION_TIMEOUT", "IDLE_TIMEOUT",
    "DAILY_BUDGET_USD_PER_USER", "ALLOWED_ORIGINS", "QUERY_TOKENS", "OPENAI_MODEL", "OPENAI_TRANSCRIPTION_MODEL",
)  # fmt: skip
"""Settings the demo takes from the environment; it decides all others, and reads no `.env`."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays in this demo: the settings, the user's token and the user's agents."""

    settings: Settings
    token: str
    agents: tuple[dict[str, Any], ...]


def main(argv: list[str]) -> int:
    """Run the demo until it is interrupted.

    Returns:
        0 after an interruption, 1 when it could not start, 2 when the command line is wrong.
    """
    options = _options(argv)
    if os.environ.get("NODE_ENV") == "production" or os.environ.get("APP_ENV") == "production":
        say("The demo does not run in production: NODE_ENV is production.")
        return 1
    try:
        run(_demo(options))
    except SettingsError as error:
        say("The demo cannot start. Mend these settings: " + "; ".join(error.problems))
        return 2
    except LocalServerError as error:
        say(f"The local Supabase project could not be started: {error}")
        return 1
    except OSError as error:
        say(_listening_failed(error, options.port))
        return 1
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice demo", description="Run everything on this machine; no account, no key."
    )
    parser.add_argument("--port", type=int, default=8080, help="of page and doors; 0: a free one (default 8080)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the talk page")
    parser.add_argument("--upstream", metavar="URL", help="a Realtime service instead of the simulator")
    parser.add_argument("--supabase", action="store_true",
                        help="sign-in, database and Vault by a local Supabase project (needs PostgreSQL and Node 20)")
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON line on stdout")
    return parser.parse_args(argv)


def _listening_failed(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        taken = f"Port {port} or {port + 1} is taken, perhaps by another demo."
        return f"{taken} Choose one: ./voice demo --port {port + 10 if port + 10 < 65535 else 0}"
    if error.errno == errno.EACCES:
        return f"Port {port} is not allowed for this user. Choose one above 1023: ./voice demo --port 8080"
    return f"The demo cannot start: {error.strerror or error}."


async def _demo(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    for port in range(options.port, options.port + 4) if options.port else ():  # page, health, telephone, ./voice call
        _check_free(port)
    port = options.port or free_port()  # decided beforehand: calls are signed over the address
    async with AsyncExitStack() as running:
        simulator = RealtimeSimulator()
        own_key = os.environ.get("OPENAI_API_KEY", "").strip()
        upstream = options.upstream or (OPENAI_URL if own_key else await simulator.start())
        running.push_async_callback(simulator.stop)
        phone = DemoPhone(port, DEMO_AGENTS)
        await phone.start(beside=bool(options.port))
        running.push_async_callback(phone.stop)
        decided = phone.environment() | {"PORT": str(port), "OPENAI_REALTIME_URL": upstream}
        decided["ADMIN_PORT"] = str(_admin_port(port) if options.port else 0)
        if not options.port:
            decided["HEALTH_PORT"] = "0"  # the one behind a free port may be anybody's
        cast = await _cast(options, decided, own_key or SIMULATOR_KEY, running)
        server = await start(cast.settings, simulated=upstream.startswith(simulator.url), phone=phone.line)
        running.push_async_callback(server.stop)
        facts = _facts(server, cast) | {"twilio": phone.facts()}
        _leave_word(facts)
        if options.json:
            print(json.dumps(facts), flush=True)
        _announce(facts, time.monotonic() - STARTED_AT, _who_answers(options, simulator, own_key))
        page = facts["url"]
        if options.supabase:
            page = page.partition("#")[0]  # without the demo user's token it asks who comes
            say(f"  sign up  {paint(page, 'green', sys.stderr)}  with any e-mail address; no e-mail is sent")
        if not (options.no_browser or options.json) and _has_display():
            webbrowser.open(page)
        await stopped.wait()
        say("stopping")
        (demo_dir() / DEMO_FILE).unlink(missing_ok=True)
    logs.shutdown()


def _check_free(port: int) -> None:
    """Raise OSError when a port is taken: sooner, and before a database is started for nothing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError:
            raise SettingsError([f"--port must be between 0 and 65534, not {port}"]) from None


def _admin_port(port: int) -> int:
    """Return the port of the operator's page: behind page, health, telephone and `./voice call`, else a free one."""
    try:
        _check_free(port + 4)
    except (OSError, SettingsError):
        return 0
    return port + 4


def _leave_word(facts: dict[str, Any]) -> None:
    """Write the facts where `./voice call` finds them; they hold a token, so for this user's eyes only."""
    file = demo_dir() / DEMO_FILE
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(facts, out)


async def _cast(options: argparse.Namespace, decided: dict[str, str], key: str, running: AsyncExitStack) -> Cast:
    """Return the settings, the user and the agents, with the database behind them running."""
    folder = demo_dir().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    decided = {"STATE_DIR": str(folder)} | decided
    decided |= {name: os.environ[name] for name in TAKEN_OVER if name in os.environ}
    if options.supabase:
        say("starting PostgreSQL and Supabase Lite (the first time some packages are installed, about 10 s)")
        project = DemoProject()
        running.push_async_callback(asyncio.to_thread, project.stop)
        facts = await asyncio.to_thread(project.start, key, TOKEN_S)
        settings = _configured(decided | facts.environment)
        return Cast(settings, facts.token, facts.agents)
    settings = _configured(decided | {"DATABASE_URL": f"sqlite:///{folder}/demo.db", "OPENAI_API_KEY": key})
    store = SqlStore.open(settings.database_url or "")
    await store.create_schema()
    for place, agent in enumerate(DEMO_AGENTS):
        await store.put_agent(agent)
        await store.put_number(PhoneNumber(number_of(place), agent["id"], agent["user_id"]))
    await store.close()
    secret = load_development_secret(settings.state_dir)
    token = mint_development_token(secret, DEMO_USER_ID, ttl_s=TOKEN_S, now=time.time())
    return Cast(settings, token, DEMO_AGENTS)


def _configured(environment: dict[str, str]) -> Settings:
    settings = read_settings(environment)
    logs.configure(
        log_dir=settings.log_dir, level=settings.log_level, environment="development", workers=1, console=False
    )
    return settings


def _facts(server: Server, cast: Cast) -> dict[str, Any]:
    """Return what `--json` prints (contract, section 8)."""
    return {
        "url": f"http://127.0.0.1:{server.port}/#token={cast.token}",
        "ws_url": f"ws://127.0.0.1:{server.port}/",
        "token": cast.token,
        "agents": [{"id": agent["id"], "name": agent["name"]} for agent in cast.agents],
        "health_url": f"http://127.0.0.1:{server.health_port}/health",
        "phone_url": f"http://127.0.0.1:{server.port}/phone",
        "admin_url": server.admin.url,
        "pid": os.getpid(),
    }


def _who_answers(options: argparse.Namespace, simulator: RealtimeSimulator, own_key: str) -> tuple[str, str]:
    """Return who answers, and with which voice, in words."""
    if options.upstream:
        return "the service of --upstream answers", ""
    if own_key:
        return "OpenAI answers, with your key; it costs money", ""
    engine = "espeak-ng found" if simulator.speech_engine == "espeak-ng" else (
        "built-in clips; `apt-get install espeak-ng` gives full sentences"
    )  # fmt: skip
    return "simulated agent, no key needed, nothing leaves this computer", engine


def _announce(facts: dict[str, Any], seconds: float, answers: tuple[str, str]) -> None:
    """Print what a person needs, on stderr, so that --json stays alone on stdout."""
    who, engine = answers
    say(f"{paint(f'voice server ready in {seconds:.1f} s', 'bold', sys.stderr)}          {who}")
    say(f"  talk     {paint(facts['url'], 'green', sys.stderr)}")
    phone = paint(facts["phone_url"], "green", sys.stderr)
    say(f"  phone    {phone}          a telephone in the page: same path as a Twilio call")
    say(f"  operator {paint(facts['admin_url'] or 'shown by another process', 'green', sys.stderr)}")
    say(f"  health   {facts['health_url']}")
    say("try:  ./voice talk --text 'Good morning'  (in another terminal)         stop: Ctrl-C")
    say("use a real agent:  OPENAI_API_KEY=... ./voice demo        put it on a server:  docs/deploy.md")
    if engine:
        say(f"speech: {engine}")


def _has_display() -> bool:
    """True where a browser window can open; a text browser would take over the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
