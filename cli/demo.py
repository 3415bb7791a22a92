"""`./voice demo`: everything on this machine, with no account and no key."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from cli.demo_data import DEMO_AGENTS, DEMO_USER_ID
from core.settings import Settings, read_settings
from server import Server, run, start
from services import log as logs
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore
from simulator.openai import RealtimeSimulator

TOKEN_S = 12 * 3600
"""Life of the demo's token: a working day."""

DEMO_DIR = Path("data/demo")


def main(argv: list[str]) -> int:
    """Run the demo until it is interrupted."""
    options = _options(argv)
    if os.environ.get("NODE_ENV", os.environ.get("APP_ENV", "")) == "production":
        print("The demo does not run in production: NODE_ENV is production.", file=sys.stderr)
        return 1
    try:
        run(_demo(options))
    except OSError as error:
        print(f"The demo cannot listen on port {options.port}: {error.strerror}. Try --port.", file=sys.stderr)
        return 1
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice demo", description="Run everything on this machine; no account, no key.")
    parser.add_argument("--port", type=int, default=8080, help="port of the page and the doors (default 8080)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the talk page")
    parser.add_argument("--upstream", metavar="URL", help="a Realtime service instead of the simulator")
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON line on stdout")
    return parser.parse_args(argv)


async def _demo(options: argparse.Namespace) -> None:
    began = time.monotonic()
    simulator = RealtimeSimulator()
    real_key = os.environ.get("OPENAI_API_KEY", "")
    simulated = not (options.upstream or real_key)
    upstream = options.upstream or ("wss://api.openai.com/v1/realtime" if real_key else await simulator.start())
    settings = _settings(options.port, upstream, real_key or "sk-demo")
    logs.configure(
        log_dir=settings.log_dir, level=settings.log_level, environment="development", workers=1, console=False
    )
    await _seed(settings)
    server = await start(settings, simulated=simulated)
    facts = _facts(server, settings)
    if options.json:
        print(json.dumps(facts), flush=True)
    _announce(facts, simulator, time.monotonic() - began, simulated=simulated)
    if not options.no_browser and not options.json:
        webbrowser.open(facts["url"])
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop()
    await simulator.stop()
    logs.shutdown()


def _settings(port: int, upstream: str, key: str) -> Settings:
    """Return the demo's settings; of the environment only what concerns logs and limits is taken over."""
    kept = ("LOG_LEVEL", "LOG_DIR", "DEBUG", "MAX_CONNECTIONS", "CONNECTION_TIMEOUT", "IDLE_TIMEOUT", "OPENAI_MODEL")
    DEMO_DIR.mkdir(parents=True, exist_ok=True)
    return read_settings(
        {name: os.environ[name] for name in kept if name in os.environ}
        | {
            "DATABASE_URL": f"sqlite:///{DEMO_DIR.resolve()}/demo.db",
            "STATE_DIR": str(DEMO_DIR.resolve()),
            "OPENAI_REALTIME_URL": upstream,
            "OPENAI_API_KEY": key,
            "PORT": str(port),
        }
    )


async def _seed(settings: Settings) -> None:
    """Put the demo's agents into the embedded database."""
    store = SqlStore.open(settings.database_url or "")
    await store.create_schema()
    for agent in DEMO_AGENTS:
        await store.put_agent(agent)
    await store.close()


def _facts(server: Server, settings: Settings) -> dict[str, Any]:
    secret = load_development_secret(settings.state_dir)
    token = mint_development_token(secret, DEMO_USER_ID, ttl_s=TOKEN_S, now=time.time())
    http, ws = f"http://127.0.0.1:{server.port}", f"ws://127.0.0.1:{server.port}"
    return {
        "url": f"{http}/#token={token}",
        "ws_url": f"{ws}/",
        "token": token,
        "agents": [{"id": agent["id"], "name": agent["name"]} for agent in DEMO_AGENTS],
        "health_url": f"http://127.0.0.1:{server.health_port}/health",
        "pid": os.getpid(),
    }


def _announce(facts: dict[str, Any], simulator: RealtimeSimulator, seconds: float, *, simulated: bool) -> None:
    """Print what a person needs, on stderr, so that --json stays alone on stdout."""
    said = "simulated agent, no key needed, nothing leaves this computer" if simulated else "real agent"
    engine = "espeak-ng found" if shutil.which("espeak-ng") else "built-in clips; `apt install espeak-ng` gives full sentences"
    lines = [
        f"voice server ready in {seconds:.1f} s          {said}",
        f"  talk     {facts['url']}",
        f"  health   {facts['health_url']}",
        "use a real agent:  OPENAI_API_KEY=... ./voice demo        stop: Ctrl-C",
    ]
    if simulated:
        lines.append(f"speech: {engine}")
    print("\n".join(lines), file=sys.stderr, flush=True)
