"""`./voice talk`: one browser conversation from a WAV file or a typed sentence, with live captions."""

from __future__ import annotations

import argparse
import json
import sys
import time
from array import array
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from cli.audio import AUDIBLE_RMS, BadWav, audible_s, level, read_wav, write_wav
from cli.console import given_path, may_colour, paint, say
from cli.demo_data import DEMO_USER_ID, demo_dir, running_demo
from cli.listener import Answer, Listener, Turn
from cli.talker import Talker, TalkFailed
from services.auth import load_development_secret, mint_development_token
from simulator.audio import bytes_of, rms

DEFAULT_URL = "ws://127.0.0.1:8080/"

TOKEN_S = 3600.0
"""Life of a token made for one conversation: as long as the longest."""

FRAME_MS = 40
FRAME_SAMPLES = 24 * FRAME_MS
"""As the talk page sends: long enough to cost little, short enough for turn detection."""

GREETING_S = 0.7
"""How long to wait for the agent to speak first; a response is announced some 0.1 s after it was asked for."""

SETTLE_S = 0.7
"""Silence after the last sample before an answer can be the last one: turn detection takes half a second."""

TRANSCRIPT_S = 3.0
"""How long to wait for a transcript after the answer; transcription is slower and may not come at all."""

REQUEST_S = 10.0
"""How long the list of agents may take."""

PAUSE_S = 0.3
"""What a person waits after the last word. The server reckons with 0.15 s from its socket to the listener's ear."""

LINE_CHARS = 60
"""Of a growing caption; with the name before it, it fits the 80 columns of the narrowest usual terminal."""

STATUS_WORDS = {"cancelled": "interrupted"}

AUDIBLE_S = 0.2
"""Least sound that counts as an answer: a short word."""


def main(argv: list[str]) -> int:
    """Talk once.

    Returns:
        0 when the agent answered audibly, 1 when it did not, 2 when the command line or the WAV file is wrong.
    """
    options = _options(argv)
    try:
        samples = read_wav(given_path(options.wav)) if options.wav else None
        url, token = _target(options.url, options.token)
    except (BadWav, OSError, ValueError) as error:
        say(f"voice talk: {error}")
        return 2
    captions = Captions(quiet=options.json)
    listener = Listener(on_turn=captions.turn, on_caption=captions.growing, on_notice=captions.notice)
    talker = Talker(listener)
    try:
        talker.connect(url, token, _query(options, url, token))
        first = _listen_to_greeting(talker, options.timeout)
        if samples is None:
            talker.type(options.text)
            talker.wait(lambda: listener.is_answered, options.timeout)
        else:
            _speak(talker, samples, first, options.timeout)
            talker.wait(lambda: listener.is_transcribed, TRANSCRIPT_S)
        _listen(talker)
    except TalkFailed as error:
        say(f"voice talk: {error}")
        return 1
    finally:
        talker.hang_up()
    return _report(listener, listener.answers[first:], options, talker.ending)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice talk",
        description="Talk once to an agent, as a browser would. Without --url and --token: to the running demo.",
    )
    said = parser.add_mutually_exclusive_group(required=True)
    said.add_argument("--wav", metavar="IN", help="what to say: a WAV file, 16 bits, any rate, mono or stereo")
    said.add_argument("--text", help="what to say, typed instead of spoken")
    parser.add_argument("--out", metavar="OUT", help="write the answer to this WAV file")
    parser.add_argument("--url", default=running_demo().get("url", DEFAULT_URL),
                        help=f"of the server, or a talk address (default: the running demo, else {DEFAULT_URL})")
    parser.add_argument("--token", help="of the user (default: a token for the demo's user)")
    parser.add_argument("--agent", metavar="ID", help="which agent (default: the user's first)")
    parser.add_argument("--voice", help="in which voice it shall speak (default: the agent's)")
    parser.add_argument("--conversation", metavar="ID", help="go on with this conversation")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S",
                        help="longest wait for the end of the answer after the last word (default 60)")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end instead of captions")
    return parser.parse_args(argv)


# ---------------------------------------------------------------------- to whom


def _target(url: str, token: str | None) -> tuple[str, str]:
    """Return the WebSocket address and the token; the address may be the page's, with the token after `#`."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ValueError(f"--url must begin with ws://, wss://, http:// or https://, not {parts.scheme or url!r}")
    token = token or parse_qs(parts.fragment).get("token", [None])[0] or _demo_token()
    return parts._replace(scheme=scheme, path=parts.path or "/", fragment="").geturl(), token


def _demo_token() -> str:
    return mint_development_token(load_development_secret(demo_dir()), DEMO_USER_ID, ttl_s=TOKEN_S, now=time.time())


def _query(options: argparse.Namespace, url: str, token: str) -> dict[str, str]:
    named = {"agent_id": options.agent or _first_agent(url, token), "voice": options.voice,
             "conversation_id": options.conversation}  # fmt: skip
    return {name: value for name, value in named.items() if value}


def _first_agent(url: str, token: str) -> str:
    """Return the id of the user's first agent.

    Raises:
        TalkFailed: If the list cannot be had or is empty.
    """
    parts = urlsplit(url)
    address = parts._replace(scheme=parts.scheme.replace("ws", "http"), path="/api/agents", query="").geturl()
    try:
        answer = httpx.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=REQUEST_S)
        agents = answer.json()["agents"] if answer.status_code == 200 else []
    except httpx.HTTPError as error:
        raise TalkFailed(
            f"{parts.netloc} cannot be reached ({type(error).__name__}). Is the server running? ./voice demo"
        ) from None
    except (ValueError, KeyError):
        raise TalkFailed(f"{parts.netloc} is no voice server: its /api/agents has another form.") from None
    if answer.status_code == 401:
        raise TalkFailed("The token was not accepted. ./voice token makes one for a server in development.")
    if not agents:
        raise TalkFailed(f"The user has no agent (/api/agents answered {answer.status_code}). Name one with --agent.")
    return str(agents[0]["id"])


# ---------------------------------------------------------------------- the conversation


def _listen_to_greeting(talker: Talker, timeout_s: float) -> int:
    """Let an agent that speaks first finish; return how many answers that were."""
    listener = talker.listener
    if talker.wait(lambda: bool(listener.answers), GREETING_S):
        talker.wait(lambda: listener.is_quiet, timeout_s)
        _listen(talker)
    return len(listener.answers)


def _listen(talker: Talker) -> None:
    """Hear to the end what has arrived: an answer whose listener hangs up counts, and is stored, as not heard."""
    talker.wait(lambda: False, talker.listener.plays_for_s(time.monotonic()) + PAUSE_S)


def _speak(talker: Talker, samples: array[int], first: int, timeout_s: float) -> None:
    """Send the samples in real time, then silence until the answer is complete.

    Args:
        first: Answers that were there before.
        timeout_s: Longest wait after the last sample.

    Raises:
        TalkFailed: If the connection is lost.
    """
    listener = talker.listener
    began, sent, committed = time.monotonic(), 0, False
    ends = began + len(samples) / (1000 * FRAME_SAMPLES / FRAME_MS)
    while (now := time.monotonic()) < ends + timeout_s:
        piece = samples[sent * FRAME_SAMPLES : (sent + 1) * FRAME_SAMPLES]
        audible = rms(piece) >= AUDIBLE_RMS
        piece.extend([0] * (FRAME_SAMPLES - len(piece)))
        talker.append(bytes_of(piece), audible=audible)
        sent += 1
        if now >= ends and not listener.detects_turns and not committed:
            talker.commit()
            committed = True
        settled = now >= ends + SETTLE_S

        def is_over(settled: bool = settled) -> bool:
            return settled and len(listener.answers) > first and listener.is_answered

        if talker.wait(is_over, max(began + sent * FRAME_MS / 1000 - time.monotonic(), 0.0)):
            return


def _report(listener: Listener, answers: list[Answer], options: argparse.Namespace, ending: str) -> int:
    """Write the answer and say what was measured; return the exit status."""
    pcm = b"".join(answer.pcm for answer in answers)
    seconds, voiced = round(len(pcm) / 48_000, 2), round(audible_s(pcm), 2)
    delays = [answer.delay_ms for answer in answers if answer.delay_ms is not None]
    if options.out:
        write_wav(given_path(options.out), pcm)
    is_answered = voiced >= AUDIBLE_S
    facts: dict[str, Any] = {
        "ok": is_answered,
        "conversation_id": listener.conversation_id,
        "first_sound_ms": delays[0] if delays else None,
        "answer_s": seconds,
        "audible_s": voiced,
        "rms": level(pcm),
        "turns": [asdict(turn) for turn in listener.turns],
    }
    if options.json:
        print(json.dumps(facts), flush=True)
    delay = f"first sound after {delays[0]} ms, " if delays else ""
    say(f"{delay}{seconds} s of answer, {voiced} s audible, level {facts['rms']}")
    say(f"conversation {listener.conversation_id}")
    if options.out:
        say(f"answer written to {options.out}")
    if not is_answered:
        why = ending or ("An answer came, but there is no sound in it." if answers else "No answer came in time.")
        say(f"voice talk: no audible answer. {why}")
    return 0 if is_answered else 1


class Captions:
    """Finished turns on standard output; on a terminal the agent's words while they come."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._grows = may_colour(sys.stderr) and sys.stdout.isatty() and not quiet

    def turn(self, turn: Turn) -> None:
        """Print a finished turn."""
        if self._quiet:
            return
        self._clear()
        mark = "" if turn.status == "completed" else f"  ({STATUS_WORDS.get(turn.status, turn.status)})"
        who = paint(f"{turn.who:<5}", "green" if turn.who == "agent" else "bold", sys.stdout)
        print(f"{turn.at_s:7.2f} s  {who}  {turn.text}{mark}", flush=True)

    def growing(self, text: str) -> None:
        """Show the last words of a turn under way on one line."""
        if self._grows:
            shown = f"\r\x1b[K           {paint('agent', 'dim', sys.stderr)}  {text[-LINE_CHARS:]}"
            print(shown, end="", file=sys.stderr, flush=True)

    def notice(self, text: str) -> None:
        """Print what the server says itself."""
        self._clear()
        say(f"  server: {text}")

    def _clear(self) -> None:
        if self._grows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
