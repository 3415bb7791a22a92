"""`./voice talk` against a running server: captions, the answer's sound, and sentences for what goes wrong."""

from __future__ import annotations

import json
import math
import time
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.audio import audible_s, read_wav, write_wav
from cli.demo_data import RECEPTIONIST_ID, TUTOR_ID
from cli.local_postgres import free_port
from cli.talk import main
from simulator.audio import bytes_of
from tests.fakes.gateway import Gateway

QUESTION = Path(__file__).parent.parent / "data" / "question.wav"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Return one server for this file."""
    with Gateway() as running:
        yield running


def talk(gateway: Gateway, *arguments: str | Path, token: str | None = None) -> int:
    """Run the command against the server."""
    return main(["--url", gateway.ws_url, "--token", token or gateway.token(), *map(str, arguments)])


def test_spoken_question_gets_an_audible_answer(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A WAV in, a WAV with sound out; both sides' captions on standard output, the delay on standard error."""
    out = tmp_path / "answer.wav"
    assert talk(gateway, "--wav", QUESTION, "--out", out, "--agent", TUTOR_ID) == 0
    assert audible_s(bytes_of(read_wav(out))) > 1
    captured = capsys.readouterr()
    spoken = [line.split() for line in captured.out.splitlines()]
    assert {words[2] for words in spoken} == {"you", "agent"}
    assert "first sound after" in captured.err
    assert gateway.token() not in captured.err + captured.out


def test_agent_that_greets_is_heard_out_first(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """The greeting is a turn of its own; the answer's sound and delay are of the question alone."""
    assert talk(gateway, "--text", "Are you open on Monday?", "--agent", RECEPTIONIST_ID, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [turn["who"] for turn in facts["turns"]] == ["agent", "you", "agent"]
    assert 0 <= facts["first_sound_ms"] < 5000
    assert facts["ok"]
    assert facts["rms"] > 300


def test_first_agent_is_taken_when_none_is_named(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --agent the first of GET /api/agents answers."""
    assert talk(gateway, "--text", "hello", "--json") == 0
    assert json.loads(capsys.readouterr().out)["conversation_id"]


def test_address_of_the_talk_page_is_enough(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """What the demo prints as talk address carries the token too."""
    assert main(["--url", f"{gateway.url}/#token={gateway.token()}", "--text", "hello"]) == 0
    assert "agent" in capsys.readouterr().out


def test_silence_is_not_answered(gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody answers silence: exit status 1 and a sentence."""
    silence = tmp_path / "silence.wav"
    write_wav(silence, bytes(24_000))
    assert talk(gateway, "--wav", silence, "--timeout", "1", "--agent", TUTOR_ID) == 1
    assert "no audible answer. No answer came in time." in capsys.readouterr().err


def test_steady_tone_of_another_rate_is_heard(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stereo file at 44.1 kHz arrives as speech of its own length: the simulator counts 1.0 s."""
    samples = array("h", (round(9000 * math.sin(2 * math.pi * 440 * n / 44_100)) for n in range(44_100)))
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(bytes_of(array("h", (value for sample in samples for value in (sample, sample)))))
    assert talk(gateway, "--wav", path, "--agent", TUTOR_ID, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert any("one" in turn["text"] for turn in facts["turns"] if turn["who"] == "agent"), facts["turns"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--text", "hi", "--agent", "00000000-0000-4000-8000-00000000dead"], 1, "4004, Agent not found"),
        (["--text", "hi", "--agent", "nonsense"], 1, "agent_id must be a UUID"),
        (["--wav", "there-is-no-such.wav"], 2, "No such file"),
    ],
)
def test_what_the_server_refuses_is_said(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, sentence: str
) -> None:
    """A refusal ends with the reason in words."""
    assert talk(gateway, *arguments) == status
    assert sentence in capsys.readouterr().err


def test_bad_token_says_where_to_get_one(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """4001 and 401 lead to ./voice token, and the token is not repeated."""
    bad = "eyJhbGciOiJIUzI1NiJ9.e30.nonsense-signature"
    assert talk(gateway, "--text", "hi", "--agent", TUTOR_ID, token=bad) == 1
    with_agent = capsys.readouterr().err
    assert talk(gateway, "--text", "hi", token=bad) == 1
    without_agent = capsys.readouterr().err
    for said in (with_agent, without_agent):
        assert "./voice token" in said
        assert bad not in said
    assert "4001, Unauthorized" in with_agent


@pytest.mark.parametrize("agent", [["--agent", TUTOR_ID], []])
def test_no_server_is_said(agent: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens, the command says how to start a server."""
    assert main(["--url", f"ws://127.0.0.1:{free_port()}/", "--token", "x", "--text", "hi", *agent]) == 1
    assert "./voice demo" in capsys.readouterr().err


def test_other_schemes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that is none of a server is a mistake on the command line."""
    assert main(["--url", "ftp://127.0.0.1/", "--token", "x", "--text", "hi"]) == 2
    assert "must begin with" in capsys.readouterr().err


def stored(gateway: Gateway, conversation_id: str, count: int) -> list[Any]:
    """Return the turns the server keeps of a conversation, when there are so many of them."""
    context = gateway.server.context
    deadline = time.monotonic() + 5
    while True:
        gateway.run(context.spool.flushed(5.0))
        turns = gateway.run(context.store.history(conversation_id, gateway.user_id))
        if len(turns) >= count or time.monotonic() > deadline:
            return turns


def test_conversation_can_be_gone_on_with(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """--conversation resumes: four turns stand in one stored conversation."""
    assert talk(gateway, "--text", "first", "--agent", TUTOR_ID, "--json") == 0
    conversation_id = json.loads(capsys.readouterr().out)["conversation_id"]
    again = ["--text", "second", "--agent", TUTOR_ID, "--conversation", conversation_id]
    assert talk(gateway, *again) == 0
    turns = stored(gateway, conversation_id, 4)
    assert [(turn.role, turn.status) for turn in turns] == [("user", "complete"), ("assistant", "complete")] * 2
    assert turns[3].content == "You typed: second"
