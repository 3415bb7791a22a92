"""The WebSocket wire of the doors: one interface, two receive loops.

`fast` takes the socket to the event loop's own transport (`handlers/fast_frames.py`), `tornado` leaves it to Tornado's
(`handlers/strict_frames.py`). Both pass the same tests, so that an upgrade of Tornado can never strand the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from handlers.fast_frames import FastProtocol
from handlers.strict_frames import Receiver, StrictProtocol


class Sink(Protocol):
    """Where the frames for one client go."""

    on_room: Callable[[], None]
    """Called when a full sink may be given more; set by the one who writes."""

    is_full: bool
    """True while the client reads too slowly to be given more."""

    def send_text(self, frame: bytes) -> None:
        """Write one text message; never raises: that a connection is gone is told elsewhere."""

    def burst(self, is_on: bool) -> None:
        """Say that several messages follow at once, and that this is over: they may leave together."""


def make_protocol(handler: WebSocketHandler, receiver: Receiver, wire: str) -> StrictProtocol | None:
    """Return the protocol object for a handshake, or None when the client's version is not supported.

    Args:
        handler: The door.
        receiver: Takes the messages.
        wire: `fast` or `tornado`, see the setting WIRE.
    """
    model = WebSocketHandler.get_websocket_protocol(handler)
    if model is None:
        return None
    assert isinstance(model, WebSocketProtocol13)
    return FastProtocol(model, receiver) if wire == "fast" else StrictProtocol(model, receiver)
