"""A small phone server for tests of the simulated Twilio: it checks signatures, answers TwiML, and echoes.

    server = PhoneServer()
    await server.start()
    server.voice_url, server.stream_url, server.received, server.forms

It is written with the official `twilio` package, so it misleads only where that does. What it does with a stream is the
list of words in `behaviour`: see `PhoneSocket`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

from simulator.twilio_settings import DEMO_ACCOUNT

TONE = bytes([0x1F, 0x9F] * 80)
"""20 ms of a loud 4 kHz tone in mu-law."""


class PhoneServer:
    """The application behind a number, on loopback.

    Attributes:
        document: Builds the TwiML of the voice webhook; default: connect to the stream.
        after: TwiML of the action URL.
        forms: (path, fields, signature was right) of every webhook.
        received: Every message of Twilio, parsed; of all sockets.
        handshakes: (headers, signature was right) of every WebSocket.
        sockets: Open sockets.
        behaviour: `echo`, `tone N` (seconds of tone at start), `answer N` (the same after every speech), `mark`,
            `clear on speech`, `close after N` media messages, `bad messages`, `refuse`, `two keys hang up`.
    """

    def __init__(self, *behaviour: str, token: str, public: str = "") -> None:
        self.behaviour = behaviour
        self.validator = RequestValidator(token)
        self.document: Callable[[PhoneServer], str] = connect_document
        self.after = str(VoiceResponse())
        self.forms: list[tuple[str, dict[str, str], bool]] = []
        self.received: list[dict[str, Any]] = []
        self.handshakes: list[tuple[dict[str, str], bool]] = []
        self.sockets: list[PhoneSocket] = []
        self.content_type = "text/xml"
        self.status = 200
        self._public = public
        self._server: HTTPServer

    async def start(self) -> None:
        """Listen on a free port."""
        sockets = bind_sockets(0, "127.0.0.1")
        self.address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        routes: list[Any] = [(r"/stream", PhoneSocket, {"phone": self}), (r"/.*", Webhook, {"phone": self})]
        self._server = HTTPServer(Application(routes, log_function=lambda _: None))
        self._server.add_sockets(sockets)

    async def stop(self) -> None:
        """Stop listening."""
        self._server.stop()
        for socket in list(self.sockets):
            socket.close()
        await self._server.close_all_connections()

    @property
    def name(self) -> str:
        """The name Twilio is told: the public one, or the address."""
        return self._public or self.address

    @property
    def voice_url(self) -> str:
        """Address of the voice webhook."""
        return f"https://{self.name}/voice?lang=en%20us"

    @property
    def stream_url(self) -> str:
        """Address of the stream."""
        return f"wss://{self.name}/stream"

    def url(self, path: str) -> str:
        """Return the address of another webhook."""
        return f"https://{self.name}/{path}"

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the messages of one event."""
        return [message for message in self.received if message.get("event") == event]

    def paths(self) -> list[str]:
        """Return the paths of the webhooks, in order."""
        return [path for path, _, _ in self.forms]


def connect_document(phone: PhoneServer, **changes: Any) -> str:
    """Return the usual document: connect, with a token, an action and a stream callback."""
    response, connect = VoiceResponse(), Connect(action=phone.url("after"))
    stream = connect.stream(url=phone.stream_url, status_callback=phone.url("stream-status"), **changes)
    stream.parameter(name="token", value='one "time" & <token>')
    response.append(connect)
    return str(response)


@asynccontextmanager
async def phone(*behaviour: str, token: str = DEMO_ACCOUNT.auth_token, public: str = "") -> AsyncIterator[PhoneServer]:
    """Run a phone server of the simulator's first account."""
    server = PhoneServer(*behaviour, token=token, public=public)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Webhook(RequestHandler):
    """Every HTTP request of Twilio."""

    def initialize(self, phone: PhoneServer) -> None:
        """Take the server."""
        self.phone = phone

    def get(self) -> None:
        """Answer a GET as a POST; its fields are in the query."""
        self.post()

    def post(self) -> None:
        """Check the signature and answer."""
        is_form = self.request.method == "POST"
        # Tornado's own reading drops fields without a value; they are signed all the same.
        fields = dict(parse_qsl(self.request.body.decode(), keep_blank_values=True)) if is_form else {}
        url = f"https://{self.request.headers['Host']}{self.request.uri}"
        given = self.request.headers.get("X-Twilio-Signature", "")
        valid = self.phone.validator.validate(url, fields, given)
        if not is_form:
            fields = dict(parse_qsl(self.request.query, keep_blank_values=True))
        self.phone.forms.append((self.request.path, fields, valid))
        self.set_header("Content-Type", self.phone.content_type)
        if not valid:
            self.set_status(403)
        elif self.request.path == "/voice":
            self.set_status(self.phone.status)
            self.write(self.phone.document(self.phone))
        elif self.request.path == "/after":
            self.write(self.phone.after)
        elif not self.request.path.endswith("status"):
            self.write(str(VoiceResponse()))


class PhoneSocket(WebSocketHandler):
    """The stream."""

    def initialize(self, phone: PhoneServer) -> None:
        """Take the server."""
        self.phone = phone
        self.stream_sid = ""
        self.media = 0
        self.keys = 0
        self.speaks = False

    async def prepare(self) -> None:
        """Note the handshake; refuse it if asked to."""
        headers = dict(self.request.headers.get_all())
        given = headers.get("X-Twilio-Signature", "")
        self.phone.handshakes.append((headers, self.phone.validator.validate(self.phone.stream_url, {}, given)))
        if "refuse" in self.phone.behaviour:
            self.send_error(503)

    def check_origin(self, origin: str) -> bool:
        """Let every origin in; the test looks at the header."""
        return True

    def open(self, *_: str, **__: str) -> None:
        """Count the socket."""
        self.phone.sockets.append(self)

    def on_close(self) -> None:
        """Forget the socket."""
        self.phone.sockets.remove(self)

    def tell(self, **message: Any) -> None:
        """Send a message of this stream."""
        self.write_message(json.dumps({"streamSid": self.stream_sid, **message}))

    def play(self, audio: bytes) -> None:
        """Queue audio."""
        self.tell(event="media", media={"payload": base64.b64encode(audio).decode()})

    def on_message(self, text: str | bytes) -> None:
        """Do what `behaviour` says."""
        try:
            message = json.loads(text)
        except ValueError:
            message = {"event": "garbage"}
        self.phone.received.append(message)
        handler = getattr(self, f"_on_{message.get('event')}", None)
        if handler:
            handler(message)

    def _on_start(self, message: dict[str, Any]) -> None:
        again = bool(self.stream_sid)
        self.stream_sid = message["start"]["streamSid"]
        for word in () if again else self.phone.behaviour:
            if word.startswith("tone "):
                self.play(TONE * round(float(word[5:]) * 50))
            elif word == "mark":
                self.tell(event="mark", mark={"name": "g0:1"})
            elif word == "bad messages":
                self._send_bad_messages()

    def _send_bad_messages(self) -> None:
        self.write_message(b"\x00\x01", binary=True)
        self.write_message("{not json")
        self.tell(event="hang_up")
        self.tell(event="media", media={"payload": "AAAA", "track": "outbound"})
        self.tell(event="media", sequenceNumber="1", media={"payload": "AAAA"})
        self.tell(event="media", media={"payload": "no base64!"})
        self.tell(event="mark")
        self.tell(event="clear", clear={})
        self.write_message(json.dumps({"event": "clear", "streamSid": None}))

    def _on_media(self, message: dict[str, Any]) -> None:
        self.media += 1
        audio = base64.b64decode(message["media"]["payload"])
        if "echo" in self.phone.behaviour:
            self.play(audio)
        if "clear on speech" in self.phone.behaviour and audio != b"\xff" * len(audio):
            self.tell(event="clear")
        self._answer_when_silent(audio != b"\xff" * len(audio))
        if f"close after {self.media}" in self.phone.behaviour:
            self.close(1008, "enough")

    def _answer_when_silent(self, speaks: bool) -> None:
        was_speaking, self.speaks = self.speaks, speaks
        for word in self.phone.behaviour if was_speaking and not speaks else ():
            if word.startswith("answer "):
                self.play(TONE * round(float(word[7:]) * 50))

    def _on_dtmf(self, message: dict[str, Any]) -> None:
        self.keys += 1
        if "two keys hang up" in self.phone.behaviour and self.keys == 2:
            self.close()
