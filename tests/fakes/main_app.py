"""The app of an agent's owner as a small Tornado server: it answers Twilio's voice webhook itself, in two ways.

    with MainApp(INTERNAL_KEY) as app:
        app.put_url       # puts the call at the gateway and writes the token of its answer into the TwiML
        app.fetch_url     # writes TwiML without a token; the gateway asks for the call's configuration
        app.gateway_url = gateway.url
        app.calls["+1…"] = {"agent_id": …, "user_id": …, "config": {…}}

Signatures are checked and documents written with the official `twilio` package.
It misleads in that it keeps its calls in memory and answers at once.
"""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Self

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

DEADLINE_S = 30.0


class MainApp:
    """The app; `with` starts it in a thread of its own.

    Attributes:
        calls: What is announced, by called number: `agent_id`, `user_id`, `config`.
        gateway_url: Where `PUT /api/calls/{CallSid}` goes.
        stream_url: Of the gateway, for TwiML without a token.
        asked: Path and `Authorization` of every request for a configuration.
        answers: What the gateway answered to each `PUT`.
    """

    def __init__(self, internal_key: str, *, auth_token: str, stream_url: str) -> None:
        self.internal_key, self.stream_url = internal_key, stream_url
        self.validator = RequestValidator(auth_token)
        self.calls: dict[str, dict[str, Any]] = {}
        self.waiting: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.answers: list[dict[str, Any]] = []
        self.gateway_url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="main app", daemon=True)
        self._server: HTTPServer
        self.url = ""

    @property
    def put_url(self) -> str:
        """Voice webhook that puts the call at the gateway."""
        return f"{self.url}/voice/put"

    @property
    def fetch_url(self) -> str:
        """Voice webhook that waits to be asked."""
        return f"{self.url}/voice/fetch"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    async def _start(self) -> None:
        (socket,) = bind_sockets(0, "127.0.0.1")
        routes: list[Any] = [
            (r"/voice/(put|fetch)", _Voice, {"app": self}),
            (r"/api/twilio/call-config/(\w+)", _CallConfig, {"app": self}),
        ]
        self._server = HTTPServer(Application(routes, log_function=lambda handler: None))
        self._server.add_socket(socket)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


class _Voice(RequestHandler):
    """The voice webhook of the app's numbers."""

    def initialize(self, app: MainApp) -> None:
        self.app = app

    async def post(self, way: str) -> None:
        """Announce the call and connect it."""
        fields = {name: self.get_body_argument(name) for name in self.request.body_arguments}
        given = self.request.headers.get("X-Twilio-Signature", "")
        if not self.app.validator.validate(self.request.full_url(), self._signed(fields), given):
            self.send_error(403)
            return
        call = {**self.app.calls[fields["To"]], "from_number": fields["From"], "to_number": fields["To"]}
        stream_url, token = self.app.stream_url, ""
        if way == "put":
            answer = await self._put(fields["CallSid"], call)
            stream_url, token = answer["stream_url"], answer["token"]
        else:
            self.app.waiting[fields["CallSid"]] = call
        response, connect = VoiceResponse(), Connect()
        stream = connect.stream(url=stream_url)
        if token:
            stream.parameter(name="token", value=token)
        response.append(connect)
        self.set_header("Content-Type", "text/xml")
        self.finish(str(response))

    def _signed(self, fields: dict[str, str]) -> dict[str, str]:
        """Return the form with its empty fields, which Tornado leaves out and Twilio signs."""
        names = [pair.partition("=")[0] for pair in self.request.body.decode().split("&")]
        return {name: fields.get(name, "") for name in names}

    async def _put(self, call_sid: str, call: dict[str, Any]) -> dict[str, Any]:
        client = AsyncHTTPClient(force_instance=True)
        try:
            answer = await client.fetch(
                f"{self.app.gateway_url}/api/calls/{call_sid}", method="PUT", body=json.dumps(call),
                headers={"Authorization": f"Bearer {self.app.internal_key}"}, request_timeout=DEADLINE_S,
            )  # fmt: skip
        finally:
            client.close()
        self.app.answers.append(json.loads(answer.body))
        return self.app.answers[-1]


class _CallConfig(RequestHandler):
    """What the gateway asks for."""

    def initialize(self, app: MainApp) -> None:
        self.app = app

    def get(self, call_sid: str) -> None:
        """Answer the configuration of a call that waits."""
        authorization = self.request.headers.get("Authorization", "")
        self.app.asked.append((self.request.path, authorization))
        if authorization != f"Bearer {self.app.internal_key}":
            self.send_error(401)
        elif call_sid not in self.app.waiting:
            self.send_error(404)
        else:
            self.finish(self.app.waiting[call_sid])
