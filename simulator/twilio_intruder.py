"""Somebody who has seen a one-time token and tries it a second time, with a handshake signed as Twilio's."""
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from simulator.twilio_faults import CallFaults
from simulator.twilio_handshake import HandshakeFailed, abort, handshake
from simulator.twilio_messages import Envelopes, Rejected, check
from simulator.twilio_playout import SILENCE
from simulator.twilio_sids import new_sid

if TYPE_CHECKING:
    from simulator.twilio_stream import Leg


async def intrude(leg: Leg, url: str, parameters: Mapping[str, str] | None) -> None:
    """Use the token of a living stream again; afterwards `record.intruder` says how it went.

    With `replayed_token` for the same call, with `stolen_token` for another. `close_code` is the application's, None
    when it let the intruder stay; `audio_bytes` is what it got to hear.
    """
    fault = leg.faults.has("replayed_token") or leg.faults.has("stolen_token")
    if fault is None:
        return
    await asyncio.sleep(fault.after / 1000)
    call_sid = new_sid("CA") if fault.name == "stolen_token" else leg.record.sid
    write = Envelopes(stream_sid=new_sid("MZ"), call_sid=call_sid, account_sid=leg.record.account_sid)
    try:
        socket = await handshake(url, account=leg.account, settings=leg.settings, faults=CallFaults())
    except HandshakeFailed as failure:
        leg.record.intruder = {"refused": failure.status, "close_code": None, "audio_bytes": 0}
        return
    heard = 0
    try:
        heard = await _listen(socket, write, parameters, fault.seconds)
    finally:
        leg.record.intruder = {"refused": 0, "close_code": socket.close_code, "audio_bytes": heard}
        leg.record.note("intruder", **leg.record.intruder)
        abort(socket)


async def _listen(
    socket: WebSocketClientConnection, write: Envelopes, parameters: Mapping[str, str] | None, seconds: float
) -> int:
    """Begin a stream and listen for so long, or until the socket is closed; return the bytes of audio heard."""
    heard = 0
    with contextlib.suppress(TimeoutError, WebSocketClosedError):
        async with asyncio.timeout(seconds):
            for message in (write.connected(), write.start(parameters), write.media(SILENCE * 160, 20)):
                await socket.write_message(message)
            while (frame := await socket.read_message()) is not None:
                found = check(frame, write.stream_sid)
                heard += 0 if isinstance(found, Rejected) else len(found.audio)
    return heard
