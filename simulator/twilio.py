"""A believable Twilio on loopback: it calls your number, streams the call, and answers its REST API.

    python -m simulator.twilio --port 8091

`TwilioSimulator` in a test: `async with TwilioSimulator() as sim: record = await sim.call(voice_url=..., wav=...)`.
The script of a caller is in `simulator.twilio_caller`, what goes wrong in `simulator.twilio_faults`. Not simulated:
the telephone network (codec, echo, jitter of carriers), the latency of the real `clear`, Twilio's own time limits.
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from simulator.faults import UnknownFaultError
from simulator.speech import Voice
from simulator.twilio_api import CallHandler, CallsHandler, SimulatedCallHandler, SimulateHandler
from simulator.twilio_call import Call
from simulator.twilio_faults import TWILIO_FAULTS, twilio_fault
from simulator.twilio_plan import CallPlan
from simulator.twilio_record import CallRecord
from simulator.twilio_settings import TwilioSettings

KEPT_CALLS = 200
# Connections of all calls to the application at the same time; webhooks are short.
MAX_REQUESTS = 200
STOP_TIMEOUT_S = 5.0


class TwilioSimulator:
    """The service inside a running event loop.

    Attributes:
        calls: The last 200 calls by sid, living ones among them.
        rest_requests: Method and path of the last requests to the REST API.
    """

    def __init__(self, settings: TwilioSettings | None = None, **changes: Any) -> None:
        """Prepare a simulator; nothing listens yet.

        Args:
            settings: Its behaviour; default `TwilioSettings()`.
            changes: Single settings by name. `faults` may hold names (`"no_start"`) besides `Fault` objects.

        Raises:
            UnknownFaultError: If a fault is named that does not exist.
        """
        if "faults" in changes:
            changes["faults"] = tuple(twilio_fault(item) for item in changes["faults"])
        self.settings = replace(settings or TwilioSettings(), **changes)
        self.calls: dict[str, Call] = {}
        self.rest_requests: deque[str] = deque(maxlen=1000)
        self._voice = Voice(clips_only=self.settings.clips_only)
        self._running: dict[asyncio.Task[CallRecord], Call] = {}
        self._client: AsyncHTTPClient | None = None
        self._server: HTTPServer | None = None
        self._address = ""

    @property
    def api_url(self) -> str:
        """Base of the REST API, for `client.api.base_url`: `http://127.0.0.1:PORT`."""
        return f"http://{self._address}"

    async def start(self, port: int = 0, host: str = "127.0.0.1", *, doors: Sequence[Any] = ()) -> str:
        """Listen, and return `api_url`; port 0 takes a free one.

        Args:
            doors: More entries of the URL table, such as `Softphone.doors()`; they come before its own.

        Raises:
            OSError: If the port is taken.
        """
        sockets = bind_sockets(port, host)
        self._client = AsyncHTTPClient(force_instance=True, max_clients=MAX_REQUESTS)
        self._server = HTTPServer(self._application(doors))
        self._server.add_sockets(sockets)
        self._address = f"{host}:{sockets[0].getsockname()[1]}"
        return self.api_url

    async def stop(self) -> None:
        """Hang up every call and stop listening."""
        if self._server is None or self._client is None:
            return
        for call in self._running.values():
            call.complete(by="simulator")
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._server.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.close_all_connections(), STOP_TIMEOUT_S)
        self._client.close()
        await self._voice.close()
        self._server = None

    async def __aenter__(self) -> TwilioSimulator:
        """Start on a free port."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def dial(self, plan: CallPlan | None = None, **changes: Any) -> Call:
        """Begin a call and return it at once; `await call.finished` is its record.

        Args:
            plan: What the call is to be; default `CallPlan()`.
            changes: Single fields of the plan by name.

        Raises:
            UnknownFaultError: If a fault is named that does not exist.
            ValueError: If the account is unknown, or the WAV file is none.
            OSError: If the WAV file cannot be read.
        """
        if self._client is None:
            raise ValueError("the simulator has not been started")
        plan = replace(plan or CallPlan(), **changes)
        account = self.settings.account(plan.account_sid) if plan.account_sid else self.settings.accounts[0]
        if account is None:
            raise ValueError("the account is not one of the simulator's")
        call = Call(plan, account, self.settings, client=self._client, voice=self._voice)
        self.calls[call.record.sid] = call
        for sid in [sid for sid, old in self.calls.items() if old.is_over][: max(len(self.calls) - KEPT_CALLS, 0)]:
            del self.calls[sid]
        task = call.begin()
        self._running[task] = call
        task.add_done_callback(self._running.pop)
        return call

    async def call(self, plan: CallPlan | None = None, **changes: Any) -> CallRecord:
        """Make a call and return its record when it is over; see `dial`."""
        return await self.dial(plan, **changes).finished

    def _application(self, doors: Sequence[Any]) -> Application:
        shared = {"exchange": self}
        account = r"/2010-04-01/Accounts/(\w+)"
        routes: list[Any] = [
            *doors,
            (account + r"/Calls\.json", CallsHandler, shared),
            (account + r"/Calls/(\w+)\.json", CallHandler, shared),
            (r"/simulate/calls", SimulateHandler, shared),
            (r"/simulate/calls/(\w+?)(/heard\.wav)?", SimulatedCallHandler, shared),
        ]
        return Application(routes, log_function=lambda handler: None)  # a path holds sids of calls


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="simulate twilio",
        description="A simulated Twilio: REST API for the official client, and POST /simulate/calls "
        '{"voice_url": …, "to": …, "wav": …} for a call to a number of yours.',
    )
    parser.add_argument("--port", type=int, default=8091, help="port to listen on, 0 for a free one (default 8091)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--route", action="append", default=[], metavar="NAME=HOST:PORT",
                        help="where a public name really is; may repeat")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[:AFTER_MS[:SECONDS]]",
                        help="what goes wrong in every call; may repeat: " + ", ".join(TWILIO_FAULTS))
    parser.add_argument("--clips", action="store_true", help="speak with the shipped clips even if espeak-ng is there")
    return parser.parse_args(argv)


async def _serve(options: argparse.Namespace) -> None:
    routes = dict(route.split("=", 1) for route in options.route)
    simulator = TwilioSimulator(faults=options.fault, routes=routes, clips_only=options.clips)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ended.set)
    print(await simulator.start(options.port, options.host), flush=True)
    for account in simulator.settings.accounts:
        print(f"account {account.sid} token {account.auth_token}", file=sys.stderr, flush=True)
    await ended.wait()
    await simulator.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a simulator until it is interrupted; prints its API address on stdout. Returns the exit status."""
    options = _arguments(sys.argv[1:] if argv is None else argv)
    if not all("=" in route for route in options.route):
        print("simulator: --route needs NAME=HOST:PORT", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(options))
    except (UnknownFaultError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
