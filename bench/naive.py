"""The relay most people write first: Tornado as it comes on both legs, and every message through `json.loads`.

    python -m bench.naive PORT UPSTREAM_URL

It leaves out whatever is not relaying: who comes, limits, transcripts, storage, deadlines. It is here to be measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketHandler, websocket_connect

from bench.shapes import update_for

PREVIEW = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
}


class Relay(WebSocketHandler):
    """One browser and its session."""

    def initialize(self, upstream: str) -> None:
        """Take the address of the voice service."""
        self._url = upstream
        self._upstream: WebSocketClientConnection | None = None
        self._early: list[str | bytes] = []
        self._reading: asyncio.Task[None] | None = None

    def check_origin(self, origin: str) -> bool:
        """Let everybody in."""
        return True

    async def open(self, *args: str, **kwargs: str) -> None:
        """Open the session."""
        self.set_nodelay(True)
        self._upstream = await websocket_connect(HTTPRequest(self._url, request_timeout=20.0))
        self._upstream.protocol.stream.set_nodelay(True)  # type: ignore[union-attr]  # it is open
        await self.greet(self._upstream)
        for message in self._early:
            self.on_message(message)
        self._reading = asyncio.get_running_loop().create_task(self._read(self._upstream), name="naive-reader")

    async def greet(self, upstream: WebSocketClientConnection) -> None:
        """Configure nothing: a browser of this load does so itself."""

    def on_message(self, message: str | bytes) -> None:
        """Read a message and pass it on."""
        if self._upstream is None:
            self._early.append(message)
            return
        if isinstance(json.loads(message).get("type"), str):
            self._upstream.write_message(message)

    async def _read(self, upstream: WebSocketClientConnection) -> None:
        try:
            while (message := await upstream.read_message()) is not None:
                await self.pass_on(message)
        except WebSocketClosedError:
            return
        self.close()

    async def pass_on(self, message: str | bytes) -> None:
        """Read an event, name it as browsers know it, pass it on."""
        event = json.loads(message)
        event["type"] = PREVIEW.get(event["type"], event["type"])
        await self.write_message(json.dumps(event))

    def on_close(self) -> None:
        """Close the session."""
        if self._upstream is not None:
            self._upstream.close()


class Call(Relay):
    """One call of Twilio's and its session."""

    _stream_sid = ""
    _marks = 0

    async def greet(self, upstream: WebSocketClientConnection) -> None:
        """Ask for mu-law."""
        await upstream.write_message(update_for("phone"))

    def on_message(self, message: str | bytes) -> None:
        """Read a message; audio becomes an append."""
        if self._upstream is None:
            self._early.append(message)
            return
        event = json.loads(message)
        if event["event"] == "start":
            self._stream_sid = event["start"]["streamSid"]
        elif event["event"] == "media":
            append = {"type": "input_audio_buffer.append", "audio": event["media"]["payload"]}
            # The load's upstream counts the compact form only, which is how OpenAI's own clients write it.
            self._upstream.write_message(json.dumps(append, separators=(",", ":")))

    async def pass_on(self, message: str | bytes) -> None:
        """Read an event; audio becomes media with a mark behind it."""
        event: dict[str, Any] = json.loads(message)
        if event["type"] != "response.output_audio.delta":
            return
        self._marks += 1
        media = {"event": "media", "streamSid": self._stream_sid, "media": {"payload": event["delta"]}}
        mark = {"event": "mark", "streamSid": self._stream_sid, "mark": {"name": str(self._marks)}}
        await self.write_message(json.dumps(media))
        await self.write_message(json.dumps(mark))


async def main(port: int, upstream: str) -> None:
    """Serve until the process is ended."""
    own = {"upstream": upstream}
    Application([(r"/call", Call, own), (r"/.*", Relay, own)], log_function=lambda handler: None).listen(
        port, "127.0.0.1", backlog=1024
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
