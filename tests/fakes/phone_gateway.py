"""A gateway with a telephone: many callers of a simulated Twilio at once, each with an agent and a number of its own.

    RINGS = {"greeting": Ring(actions=polite(SPEECH)), "silent": Ring({"call_settings": {"silence_timeout_s": 1}})}

    with PhoneGateway(RINGS) as gateway:
        calls = gateway.ring_all()            # all of them at the same time
        calls["greeting"].record.heard        # waits until that call is over
        calls["greeting"].messages            # what was stored of it

Nothing in it is replaced: webhook, signature, stream, marks, REST, SQLite, the simulated Realtime API.
It misleads in three ways: server and both simulators share one thread, so a busy machine is heard as gaps; the
simulated caller has no echo; and public names are reached without TLS, as behind a proxy.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cli.demo_data import DEMO_USER_ID
from core.calls import Call as AnnouncedCall
from core.calls import PhoneNumber, iso, token_hash
from core.twiml import connect_stream
from simulator.audio import PCMU, decode_samples, rms
from simulator.records import SessionRecord
from simulator.settings import SimulatorSettings
from simulator.twilio import TwilioSimulator
from simulator.twilio_call import Call
from simulator.twilio_caller import Action, HangUp, Speak, quiet
from simulator.twilio_ear import Stretch, read_wav
from simulator.twilio_plan import CallPlan
from simulator.twilio_record import CallRecord
from simulator.twilio_settings import Account, TwilioSettings
from simulator.twilio_sids import new_sid
from tests.fakes.browser import eventually
from tests.fakes.gateway import Gateway

PUBLIC_NAME = "voice.example.com"
PUBLIC_URL = f"https://{PUBLIC_NAME}"
VOICE_URL = f"{PUBLIC_URL}/api/twilio/voice"
CALLER = "+15005550142"
MASTER = Account("AC" + "1" * 32, "0123456789abcdef" * 2)
SUBACCOUNT = Account("AC" + "2" * 32, "fedcba9876543210" * 2, parent_sid=MASTER.sid)

CALL_S = 45.0
"""The caller's patience: twice the longest call, for a busy machine."""

BYTES_PER_S = 8_000

APOLOGY_S = 4.0
"""Length of the sentence that is shipped for calls which end by an error."""

_SPEECH = re.compile(r"\(speech, (0\.[89]|1\.[0-2]) seconds\)")
"""What the simulated recogniser writes of `SPEECH`; a loaded machine stretches it a little."""

SPEAKER = SimulatorSettings(speed=4.0, think_s=0.0, transcription_delay_s=0.0)
"""A model that speaks four times faster than its speech plays, as the real one does."""

_WAV = read_wav(Path(__file__).parents[1] / "data" / "question.wav")
SPEECH = _WAV[2_400 : 2_400 + 7_200]
"""0.9 s of a spoken question, mu-law."""

ASKS: tuple[Action, ...] = (Speak(SPEECH, quiet(0.6)), HangUp(quiet(1.5, patience_s=15.0)))
"""A caller who hears the greeting out however late it comes, asks, hears the answer out, and hangs up."""

LOUD = 500.0
"""Level (RMS of 16 bits) above which sound is speech for sure: the simulated voice has 1,000 and more."""


@dataclass(frozen=True)
class Ring:
    """One call to be made.

    Attributes:
        agent: Columns of the called agent over the defaults of a test: a short greeting, an interruptible talk.
        actions: The caller's script; without one the caller listens until the server hangs up.
        plan: Further fields of `CallPlan`.
        number: Columns of the number's row.
    """

    agent: Mapping[str, Any] = field(default_factory=dict)
    actions: Sequence[Action] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    number: Mapping[str, Any] = field(default_factory=dict)


class PhoneGateway(Gateway):
    """A running server with numbers, and the Twilio that calls them.

    Attributes:
        twilio: The simulated Twilio; touch it only through `run`, except for reading.
        rings: What was given.
    """

    def __init__(
        self,
        rings: Mapping[str, Ring],
        settings: Mapping[str, str] | None = None,
        *,
        simulator: SimulatorSettings = SPEAKER,
        twilio: TwilioSettings | None = None,
    ) -> None:
        """Prepare a gateway; `with` starts it.

        Args:
            rings: Calls by name; each gets an agent and a number before the server starts.
            settings: Environment variables over those of a server with a telephone.
            simulator: Behaviour of the simulated OpenAI.
            twilio: Behaviour of the simulated Twilio; default: the master account and a subaccount.
        """
        self.rings = dict(rings)
        self._routes: dict[str, str] = {}
        self._is_stopped = False
        self.twilio = TwilioSimulator(
            replace(twilio or TwilioSettings(), accounts=(MASTER, SUBACCOUNT), routes=self._routes)
        )
        seed = tuple(self._agent(name, ring) for name, ring in self.rings.items())
        asked = {
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_ACCOUNT_SID": MASTER.sid,
            "TWILIO_AUTH_TOKEN": MASTER.auth_token,
            "MAX_SESSIONS_PER_USER": "100",
            "INTERNAL_API_KEY": "internal-key-of-the-tests",
            **(settings or {}),
        }
        super().__init__(asked, simulator=simulator, seed=seed)

    def agent_id_of(self, name: str) -> str:
        """Return the id of the agent that a call's number leads to."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"agent-of-{name}"))

    def number_of(self, name: str) -> str:
        """Return the number of a call; none of them belongs to anybody."""
        return f"+1500555{1000 + list(self.rings).index(name)}"

    def _agent(self, name: str, ring: Ring) -> dict[str, Any]:
        columns = {"name": name, "greeting": "Good morning.", "voice": "marin", **ring.agent}
        columns["instructions"] = f"<{name}> {columns.get('instructions', '')}"
        return {"id": self.agent_id_of(name), "user_id": DEMO_USER_ID, **columns}

    async def _start(self) -> None:
        await self.twilio.start()
        self._overrides["TWILIO_API_URL"] = self.twilio.api_url
        await super()._start()
        self._routes[PUBLIC_NAME] = f"127.0.0.1:{self.server.port}"
        store: Any = self.server.context.store
        for name, ring in self.rings.items():
            number = PhoneNumber(self.number_of(name), self.agent_id_of(name), self.user_id)
            await store.put_number(replace(number, **ring.number))

    async def _stop(self) -> None:
        await self.twilio.stop()
        if self._is_stopped:
            await self.simulator.stop()
        else:
            await super()._stop()

    def stop_server(self, drain_s: float) -> None:
        """Stop the server as SIGTERM does; the simulators go on."""
        self._is_stopped = True
        self.run(self.server.stop(drain_s=drain_s), CALL_S)

    # ------------------------------------------------------------------ calling

    def ring(self, name: str, **changes: Any) -> Made:
        """Let somebody call the number of that name; returns at once."""
        ring = self.rings[name]
        fields = {
            "to": self.number_of(name),
            "from_": CALLER,
            "voice_url": VOICE_URL,
            "actions": ring.actions,
            "timeout_s": CALL_S,
            **ring.plan,
            **changes,
        }

        async def dial() -> Call:
            return self.twilio.dial(CallPlan(**fields))

        return Made(self, name, self.run(dial()))

    def ring_all(self) -> dict[str, Made]:
        """Let everybody call at the same time."""
        return {name: self.ring(name) for name in self.rings}

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return rows of the database."""
        with closing(sqlite3.connect(self.db)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]


class Made:
    """A call that was made; its attributes wait for its end."""

    def __init__(self, gateway: PhoneGateway, name: str, call: Call) -> None:
        self.gateway, self.name, self.call = gateway, name, call
        self.sid = call.record.sid

    @cached_property
    def record(self) -> CallRecord:
        """What Twilio remembers of the call."""

        async def finished() -> CallRecord:
            return await asyncio.shield(self.call.finished)

        return self.gateway.run(finished(), CALL_S + 20.0)

    @property
    def conversation(self) -> dict[str, Any]:
        """The stored conversation, once it has ended; `usage` decoded."""
        query = "select * from conversations where call_sid = ? and end_reason is not null"
        assert self.record
        found = eventually(lambda: self.gateway.rows(query, self.sid), 5.0)
        assert len(found) == 1, f"{len(found)} conversations of the call {self.name} ended"
        return {**found[0], "usage": json.loads(found[0]["usage"])}

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The stored messages in order, `metadata` decoded."""
        query = "select * from messages where conversation_id = ? order by position"
        found = self.gateway.rows(query, self.conversation["id"])
        return [{**row, "metadata": json.loads(row["metadata"])} for row in found]

    @property
    def row(self) -> dict[str, Any]:
        """The call's row, once it has ended."""
        query = "select * from calls where call_sid = ? and ended_at is not null"
        assert self.record
        found = eventually(lambda: self.gateway.rows(query, self.sid), 5.0)
        assert found, f"the end of the call {self.name} is not in its row"
        return dict(found[0])

    @property
    def sessions(self) -> list[SessionRecord]:
        """The sessions of this number's agent at the simulated OpenAI, oldest first."""
        mark = f"<{self.name}>"
        assert self.record
        return [session for session in self.gateway.simulator.sessions if mark in str(session.config)]

    # ------------------------------------------------------------------ the ear

    @property
    def speech(self) -> list[Stretch]:
        """Stretches of speech the caller heard, in seconds after the answer."""
        return self.record.heard_speech()

    def said(self, role: str) -> list[str]:
        """Return the stored texts of one side."""
        return [row["content"] for row in self.messages if row["role"] == role]

    def told(self) -> list[dict[str, Any]]:
        """Return the outputs of tools that the model was given, decoded where they are JSON."""
        outputs = []
        for session in self.sessions:
            for event in session.events("conversation.item.create"):
                if event["item"]["type"] == "function_call_output":
                    outputs.append(_decoded(event["item"]["output"]))
        return outputs


def announced(gateway: PhoneGateway, name: str, *, expires_in_s: float = 300.0) -> dict[str, Any]:
    """Announce a call as the main app may, in the database itself; returns how it is to be dialled."""
    sid, token, now = new_sid("CA"), secrets.token_urlsafe(16), datetime.now(UTC)
    call = AnnouncedCall(sid, gateway.agent_id_of(name), gateway.user_id, MASTER.sid)
    times = {"created_at": iso(now), "expires_at": iso(now + timedelta(seconds=expires_in_s))}
    gateway.run(gateway.server.context.store.put_call(call, token_hash=token_hash(token), **times))
    return {"call_sid": sid, "twiml": connect_stream(PUBLIC_URL, token), "voice_url": ""}


def heard_apology(call: Made) -> bool:
    """Return whether the last thing the caller heard on the stream was the shipped sentence, all of it, in speech."""
    *_, last = call.speech
    return length(last) >= APOLOGY_S - 0.6 and level(part(call.record.heard, last)) > LOUD


def answered(call: Made) -> bool:
    """Return whether the call was an ordinary talk: greeting, question, answer."""
    (said,) = call.said("user")
    return bool(_SPEECH.fullmatch(said)) and sum(map(length, call.speech)) > 2.0


def level(audio: bytes | bytearray) -> float:
    """Return the RMS of mu-law audio, of 32,768."""
    return rms(decode_samples(bytes(audio), PCMU))


def part(audio: bytes | bytearray, stretch: Stretch) -> bytes:
    """Return the audio of a stretch."""
    return bytes(audio[round(stretch.begins_s * BYTES_PER_S) : round(stretch.ends_s * BYTES_PER_S)])


def length(stretch: Stretch) -> float:
    """Return the length of a stretch in seconds."""
    return stretch.ends_s - stretch.begins_s


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
