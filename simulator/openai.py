"""A believable OpenAI Realtime API (GA protocol) on loopback: `RealtimeSimulator`, and a program around it.

    python -m simulator.openai --port 8090

It hears (by energy), answers in speech, calls tools, and fails on request. What it says is in `simulator.script`, what
goes wrong in `simulator.faults`. `GET /v1/models` and `POST /v1/vector_stores/{id}/search` are answered too.
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

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from simulator.faults import FAULTS, FaultControl, UnknownFaultError, parse_fault
from simulator.realtime_socket import RealtimeSocket
from simulator.records import KEPT_SESSIONS, SessionRecord
from simulator.rest import ModelsHandler, VectorStoreSearchHandler
from simulator.settings import SimulatorSettings
from simulator.speech import Voice

# One append may carry 15 MiB of audio, 20 MiB as base64; the rest is room for the envelope.
MAX_MESSAGE_BYTES = 24 * 1024 * 1024
STOP_TIMEOUT_S = 3.0


class RealtimeSimulator:
    """The service as a server inside a running event loop.

    Attributes:
        sessions: Record of every connection, the newest last; the last 200.
        faults: Switchboard of what goes wrong next, always, or at once.
        transcripts: What a recogniser would say of the next utterances, over all sessions; append to it at any time.
    """

    def __init__(self, settings: SimulatorSettings | None = None, **changes: Any) -> None:
        """Prepare a simulator; nothing listens yet.

        Args:
            settings: Its behaviour; default `SimulatorSettings()`.
            changes: Single settings by name, over `settings`: `RealtimeSimulator(speed=0, transcripts=["hello"])`.
                `faults` may hold names (`"drop:5"`) besides `Fault` objects.

        Raises:
            UnknownFaultError: If a fault is named that does not exist.
        """
        chosen = [parse_fault(item) if isinstance(item, str) else item for item in changes.pop("faults", ())]
        if chosen:
            changes["faults"] = tuple(chosen)
        self.settings = replace(settings or SimulatorSettings(), **changes)
        self.sessions: deque[SessionRecord] = deque(maxlen=KEPT_SESSIONS)
        self.faults = FaultControl(self.settings.faults)
        self.transcripts: deque[str] = deque(self.settings.transcripts)
        self._voice = Voice(clips_only=self.settings.clips_only)
        self._living: set[RealtimeSocket] = set()
        self._server: HTTPServer | None = None
        self._address = ""

    @property
    def url(self) -> str:
        """The realtime URL, without `?model=`: `ws://127.0.0.1:PORT/v1/realtime`."""
        return f"ws://{self._address}/v1/realtime"

    @property
    def base_url(self) -> str:
        """The REST base: `http://127.0.0.1:PORT/v1`."""
        return f"http://{self._address}/v1"

    @property
    def speech_engine(self) -> str:
        """`espeak-ng`, or `clips` where it is not installed."""
        return self._voice.engine

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Listen, and return `url`; port 0 takes a free one.

        Raises:
            OSError: If the port is taken.
        """
        sockets = bind_sockets(port, host)
        self._server = HTTPServer(self._application(), max_body_size=MAX_MESSAGE_BYTES)
        self._server.add_sockets(sockets)
        self._address = f"{host}:{sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening and end every session (close 1001); after a few seconds their TCP connections are aborted."""
        if self._server is None:
            return
        self._server.stop()
        for socket in list(self._living):
            socket.close(1001, "simulator stopped")
        if self._living:
            _, late = await asyncio.wait([socket.ended for socket in self._living], timeout=STOP_TIMEOUT_S)
            for socket in list(self._living) if late else ():
                socket.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.close_all_connections(), STOP_TIMEOUT_S)
        await self._voice.close()
        self._server = None

    async def __aenter__(self) -> RealtimeSimulator:
        """Start on a free port."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _application(self) -> Application:
        shared = {
            "settings": self.settings, "voice": self._voice, "control": self.faults, "records": self.sessions,
            "transcripts": self.transcripts, "living": self._living,
        }
        rest = {"settings": self.settings}
        routes: list[Any] = [
            (r"/v1/realtime", RealtimeSocket, shared),
            (r"/v1/models", ModelsHandler, rest),
            (r"/v1/vector_stores/([^/]+)/search", VectorStoreSearchHandler, rest),
        ]
        interval = self.settings.ping_interval_s
        return Application(
            routes,
            websocket_ping_interval=interval,
            websocket_ping_timeout=interval,
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            log_function=lambda handler: None,  # its records are `sessions`; a URL in a log could hold a key
        )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulate openai", description="A simulated OpenAI Realtime API.")
    parser.add_argument("--port", type=int, default=8090, help="port to listen on, 0 for a free one (default 8090)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--speed", type=float, default=4.0,
                        help="send audio so many times faster than it plays; 0: at once (default 4)")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[:AFTER[:SECONDS]]",
                        help="what goes wrong in every session; may repeat: " + ", ".join(FAULTS))
    parser.add_argument("--session-limit-s", type=float, default=3_600.0, help="life of a session in seconds")
    parser.add_argument("--key", action="append", default=[], help="accepted API key; may repeat (default: any)")
    parser.add_argument("--transcript", action="append", default=[], help="what the n-th utterance says; may repeat")
    parser.add_argument("--clips", action="store_true", help="speak with the shipped clips even if espeak-ng is there")
    return parser.parse_args(argv)


async def _serve(options: argparse.Namespace) -> None:
    simulator = RealtimeSimulator(
        speed=options.speed, faults=options.fault, session_limit_s=options.session_limit_s, keys=tuple(options.key),
        transcripts=tuple(options.transcript), clips_only=options.clips,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ended.set)
    print(await simulator.start(options.port, options.host), flush=True)
    print(f"speech: {simulator.speech_engine}", file=sys.stderr, flush=True)
    await ended.wait()
    await simulator.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a simulator until it is interrupted; prints its URL on stdout. Returns the exit status."""
    options = _arguments(sys.argv[1:] if argv is None else argv)
    try:
        asyncio.run(_serve(options))
    except (UnknownFaultError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
