"""`./voice call`: one phone call through a simulated Twilio, with a live timeline and the sound the caller heard."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from cli.audio import BadWav, read_wav
from cli.console import given_path, paint, say
from cli.environment import environment
from cli.phone_line import Line, NoLine, demo_file, find_line, read_demo
from simulator.audio import PCMU, bytes_of, decode_samples, from_pcm24, rms
from simulator.faults import UnknownFaultError
from simulator.twilio import TwilioSimulator
from simulator.twilio_caller import Action, HangUp, Keys, Speak, heard, quiet
from simulator.twilio_ear import Stretch, stretches
from simulator.twilio_faults import TWILIO_FAULTS, twilio_fault
from simulator.twilio_record import CallRecord, Entry
from simulator.twilio_settings import Account, TwilioSettings

CALLER_NUMBER = "+15005550142"
"""A number of Twilio's test range."""

AUDIBLE_S = 0.2
"""Least sound that counts as an answer: a short word."""

GREETING_PAUSE_S = 0.6
"""Silence after which a greeting is over; pauses between sentences are shorter."""

PATIENCE_S = 3.0
"""How long the caller waits for a greeting before speaking first."""

ANSWER_PAUSE_S = 1.5
"""Silence after which an answer is over; a tool call may need a second in the middle of one."""

ANSWER_PATIENCE_S = 15.0
"""How long the caller waits for an answer that does not begin."""

GRACE_S = 5.0
"""Beyond the caller's own patience: closing the stream and the last callbacks."""

_ENDINGS = {"application": "the server closed the stream ({code})", "nobody": "the connection was lost", "twilio": ""}

_SHOWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "webhook": lambda d: f"{d['kind']} webhook {d['path']} answered {d['status'] or 'nothing'} in {d['ms']} ms",
    "answered": lambda d: "the call is answered",
    "stream_started": lambda d: "the stream is open",
    "stream_refused": lambda d: "the stream was refused",
    "stream_closed": lambda d: _ENDINGS[d["by"]].format(**d),
    "query_stripped": lambda d: "the query of the stream's address was dropped, as Twilio does",
    "agent_speaks": lambda d: "agent speaks",
    "agent_silent": lambda d: "agent is silent",
    "caller_speaks": lambda d: f"caller speaks, {d['ms'] / 1000:.1f} s",
    "caller_silent": lambda d: "caller is silent",
    "caller_gave_up": lambda d: "the caller's patience is over",
    "dtmf": lambda d: "caller presses a key",
    "clear": lambda d: f"clear: {d['queued_ms']} ms of speech dropped" if d["queued_ms"] else "",
    "verb": lambda d: f"<{d['name']}>",
    "dial": lambda d: "transfer to another number",
    "stop": lambda d: "stop",
    "fault": lambda d: f"fault {d['name']}",
    "intruder": lambda d: f"second socket: close code {d['close_code']}, {d['audio_bytes']} bytes of audio",
    "warning": lambda d: f"{d['code'] or 'note'}: {d['text']}",
    "ended": lambda d: f"ended by {d['by']}, {d['status']}",
}


def main(argv: list[str]) -> int:
    """Call once.

    Returns:
        0 when something audible came from the agent, 1 when not, 2 when the command line or the WAV file is wrong.
    """
    options = _options(argv)
    try:
        line = find_line(
            to=options.to, url=options.url, account=(options.account_sid, options.auth_token),
            demo=read_demo(demo_file()), settings=environment(),
        )
        settings = _settings(line, options)
        script = _script(options)
        record = asyncio.run(_call(line, settings, script, options))
    except TimeoutError:
        say("voice call: the call did not end in time; a callback of the server may hang.")
        return 1
    except (NoLine, BadWav, UnknownFaultError, OSError) as error:
        say(f"voice call: {error}")
        return 2
    return _report(record, options)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice call",
        description="Call an agent through a simulated Twilio. Without --url: the running demo.",
    )
    parser.add_argument("--wav", metavar="IN", help="what the caller says: a WAV file, 16 bits, any rate")
    parser.add_argument("--out", metavar="OUT", help="write what the caller heard to this WAV file")
    parser.add_argument("--both", metavar="OUT", help="write a stereo WAV: left the agent, right the caller")
    parser.add_argument("--to", metavar="NUMBER|AGENT", help="whom to call (default: the demo's number)")
    parser.add_argument("--url", metavar="VOICE_WEBHOOK_URL", help="webhook of the number, as configured at Twilio")
    parser.add_argument("--barge-at", type=float, metavar="S",
                        help="speak again after S seconds of the answer, in the middle of it")
    parser.add_argument("--dtmf", metavar="KEYS", help="press these keys after the answer, such as 12#")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S",
                        help="the caller hangs up after so long (default 60)")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[:AFTER_MS[:SECONDS]]",
                        help="what goes wrong; may repeat: " + ", ".join(TWILIO_FAULTS))
    parser.add_argument("--route", action="append", default=[], metavar="NAME=HOST:PORT",
                        help="where a public name really is, such as voice.example.com=127.0.0.1:8080")
    parser.add_argument("--account-sid", help="of the called number (default: the demo's, then TWILIO_ACCOUNT_SID)")
    parser.add_argument("--auth-token", help="that signs (default: the demo's, then TWILIO_AUTH_TOKEN)")
    parser.add_argument("--api-port", type=int, metavar="PORT",
                        help="where the simulated REST API listens (default: where the demo looks for it)")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end instead of the timeline")
    options = parser.parse_args(argv)
    if options.barge_at is not None and not options.wav:
        parser.error("--barge-at needs --wav: the caller must say something")
    if options.dtmf and set(options.dtmf) - set("0123456789*#"):
        parser.error("--dtmf takes 0 to 9, * and #")
    if not all("=" in route for route in options.route):
        parser.error("--route needs NAME=HOST:PORT")
    return options


def _settings(line: Line, options: argparse.Namespace) -> TwilioSettings:
    """Return the simulator's settings; raises UnknownFaultError."""
    return TwilioSettings(
        accounts=(Account(line.account_sid, line.auth_token),),
        routes=dict(route.split("=", 1) for route in options.route),
        faults=tuple(twilio_fault(text) for text in options.fault),
    )


def _script(options: argparse.Namespace) -> list[Action]:
    """Return what the caller does; raises BadWav and OSError."""
    actions: list[Action] = []
    greeting_over = quiet(GREETING_PAUSE_S, patience_s=PATIENCE_S)
    answer_over = quiet(ANSWER_PAUSE_S, patience_s=ANSWER_PATIENCE_S)
    if options.wav:
        speech = from_pcm24(bytes_of(read_wav(given_path(options.wav))), PCMU)
        actions.append(Speak(speech, greeting_over))
        if options.barge_at is not None:
            actions.append(Speak(speech, heard(options.barge_at)))
    if options.dtmf:
        actions.append(Keys(options.dtmf, answer_over if options.wav else greeting_over))
    actions.append(HangUp(answer_over))
    return actions


async def _call(
    line: Line, settings: TwilioSettings, script: list[Action], options: argparse.Namespace
) -> CallRecord:
    """Call, and return the record; raises OSError when the REST API's port is taken."""
    simulator = TwilioSimulator(settings)
    await simulator.start(line.api_port if options.api_port is None else options.api_port)
    if not options.json:
        say(f"calling by a simulated Twilio; its REST API: {simulator.api_url}")
    try:
        call = simulator.dial(
            to=line.number, from_=CALLER_NUMBER, voice_url=line.voice_url, actions=script,
            timeout_s=options.timeout, watch=None if options.json else _show,
        )
        return await asyncio.wait_for(call.finished, options.timeout + settings.webhook_timeout_s + GRACE_S)
    finally:
        await simulator.stop()


def _show(entry: Entry) -> None:
    """Print one line of the timeline; audio and marks are too many to show."""
    text = _SHOWN[entry.event](dict(entry.detail)) if entry.event in _SHOWN else ""
    if not text:
        return
    look = {"agent_speaks": "green", "warning": "yellow", "caller_speaks": "bold"}.get(entry.event)
    print(f"{entry.at_s:7.2f} s  {paint(text, look, sys.stdout) if look else text}", flush=True)


def _report(record: CallRecord, options: argparse.Namespace) -> int:
    """Write the sound and say what was measured; return the exit status."""
    heard_audio, speech = bytes(record.heard), record.heard_speech()
    audible_s = sum(stretch.ends_s - stretch.begins_s for stretch in speech)
    facts: dict[str, Any] = {
        "ok": record.ended_by != "error" and audible_s >= AUDIBLE_S,
        "call_sid": record.sid,
        "status": record.status,
        "ended_by": record.ended_by,
        "first_sound_ms": round(speech[0].begins_s * 1000) if speech else None,
        "audible_s": round(audible_s, 2),
        "rms": round(rms(decode_samples(heard_audio, PCMU))),
        "cut_ms": _cut_ms(record, speech) if options.barge_at is not None else None,
        "clears": len(record.clears),
        "warnings": [warned._asdict() for warned in record.warnings],
        "rejected": record.rejected,
    }
    if options.out:
        record.write_wav(given_path(options.out))
    if options.both:
        record.write_both(given_path(options.both))
    if options.json:
        print(json.dumps(facts), flush=True)
    say(f"{facts['audible_s']} s of speech heard, level {facts['rms']}"
        + (f", first after {facts['first_sound_ms']} ms" if speech else "")
        + (f"; cut {facts['cut_ms']} ms after the caller spoke" if facts["cut_ms"] is not None else ""))  # fmt: skip
    if options.out:
        say(f"what the caller heard: {options.out}")
    if not facts["ok"]:
        say(f"voice call: nothing audible came from the agent. {_why(record)}")
    return 0 if facts["ok"] else 1


def _cut_ms(record: CallRecord, speech: list[Stretch]) -> int | None:
    """Return how long the agent was still heard when the caller spoke again; None if it was silent then."""
    spoken = [entry.at_s - (record.answered_s or 0.0) for entry in record.events("caller_speaks")]
    if len(spoken) < 2:
        return None
    voiced = [stretch for stretch in stretches(bytes(record.said)) if stretch.ends_s > spoken[1]]
    if not voiced:
        return None
    interruption = max(voiced[0].begins_s, spoken[1])
    still_heard = [stretch.ends_s for stretch in speech if stretch.begins_s < interruption <= stretch.ends_s]
    if not still_heard:
        return None
    # `clear` silences the line at once; the speech that follows may be the next answer and belongs to no cut.
    cleared = [at_s - (record.answered_s or 0.0) for at_s in record.clears]
    silent_s = min([*(at_s for at_s in cleared if at_s >= interruption), still_heard[0]])
    return round((silent_s - interruption) * 1000)


def _why(record: CallRecord) -> str:
    """Return the likeliest reason why nothing was heard, in one sentence."""
    voice = record.requests_of("voice")
    if voice and not voice[0].status:
        return "The voice webhook did not answer. Is the server running? ./voice demo"
    if voice and voice[0].status in {401, 403}:
        return f"The voice webhook answered {voice[0].status}: is the auth token, and PUBLIC_URL, what the server has?"
    if record.warnings:
        return f"Twilio's debugger would say: {record.warnings[-1].code} {record.warnings[-1].text}."
    if not record.stream_sids:
        return "The document of the voice webhook opened no stream."
    if record.received_bytes:
        return f"{record.received_bytes // 8} ms of audio came, but there is no sound in it."
    return "The stream was open, but no audio came."
