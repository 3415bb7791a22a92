"""Strangers cannot crowd callers out, and no sound is written to disk."""

from __future__ import annotations

import base64
import wave
from contextlib import ExitStack
from pathlib import Path

import websocket

from cli.demo_data import TUTOR_ID
from core.twiml import STREAM_PATH
from handlers.phone import MAX_WAITING, PhoneDoor
from tests.fakes.browser import Browser, eventually
from tests.fakes.gateway import Gateway
from tests.fakes.phone_gateway import ASKS, PhoneGateway, Ring, answered

QUESTION = Path(__file__).parents[1] / "data" / "question.wav"


def test_strangers_at_the_streams_door_do_not_keep_callers_out():
    """Sockets that nobody signed are held up to a bound; the next is refused, and a signed call is answered."""
    rings = {"caller": Ring(actions=ASKS)}
    with PhoneGateway(rings) as gateway, ExitStack() as opened:
        address = f"ws://127.0.0.1:{gateway.server.port}{STREAM_PATH}"
        for _ in range(MAX_WAITING):
            stranger = websocket.create_connection(address, suppress_origin=True, timeout=5)
            opened.callback(stranger.shutdown)
        assert eventually(lambda: PhoneDoor._waiting == MAX_WAITING, 3.0)
        one_more = websocket.create_connection(address, suppress_origin=True, timeout=5)
        opened.callback(one_more.shutdown)
        opcode, data = one_more.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE and int.from_bytes(data[:2], "big") == 1013
        assert answered(gateway.ring_all()["caller"])
    assert PhoneDoor._waiting == 0


def test_no_sound_is_on_disk_after_a_talk():
    """Neither what was said nor what was answered is in any file, as bytes or as base64."""
    with wave.open(str(QUESTION)) as file:
        question = file.readframes(file.getnframes())
    with Gateway() as gateway, Browser(gateway, agent_id=TUTOR_ID) as browser:
        browser.live()
        browser.speak(question)
        browser.answer()
        spoken = [event["delta"] for event in browser.events if event["type"] == "response.audio.delta"]
        browser.leave()
        assert eventually(lambda: gateway.server.context.spool.stats().pending == 0, 5.0)
        files = [path for path in gateway.db.parent.rglob("*") if path.is_file()]
        stored = b"".join(path.read_bytes() for path in files)
    assert spoken and files
    heard = [question[at : at + 240] for at in range(24_000, len(question) - 24_000, 24_000)]
    said = [base64.b64decode(delta)[480:720] for delta in spoken]
    loud = [piece for piece in (*heard, *said) if len(set(piece)) > 20]  # silence looks like nothing in particular
    assert loud
    assert not [piece for piece in loud if piece in stored or base64.b64encode(piece) in stored]
