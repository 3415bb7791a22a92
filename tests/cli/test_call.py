"""`./voice call` against a small phone server: timeline, sound, and a sentence when nothing audible came."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cli.call import main
from cli.demo_data import demo_dir
from simulator.twilio_ear import read_wav, stretches, write_wav
from simulator.twilio_settings import DEMO_ACCOUNT
from tests.fakes.phone_server import TONE, PhoneServer

DEADLINE_S = 30.0

Phone = Callable[..., AbstractContextManager[PhoneServer]]


@contextmanager
def phone(*behaviour: str) -> Iterator[PhoneServer]:
    """Run a phone server in a loop of its own; the command has another."""
    server = PhoneServer(*behaviour, token=DEMO_ACCOUNT.auth_token)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="phone-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(DEADLINE_S)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(DEADLINE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """Return a WAV file of 0.3 s."""
    path = tmp_path / "question.wav"
    write_wav(path, TONE * 15)
    return path


@pytest.fixture(autouse=True)
def _no_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no demo of this machine be found."""
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))


def call(server: PhoneServer, *arguments: object, token: str = DEMO_ACCOUNT.auth_token) -> int:
    """Run the command against the server."""
    account = ["--account-sid", DEMO_ACCOUNT.sid, "--auth-token", token]
    return main(["--url", server.voice_url, *account, *map(str, arguments)])


def test_spoken_question_is_answered_and_written(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greeting and answer are in the WAV, the timeline is on standard output, the token nowhere."""
    out, both = tmp_path / "heard.wav", tmp_path / "both.wav"
    with phone("tone 0.3", "echo") as server:
        assert call(server, "--wav", question, "--out", out, "--both", both) == 0
    assert len(stretches(read_wav(out))) == 2
    assert both.exists()
    captured = capsys.readouterr()
    spoken = [line.partition(" s  ")[2] for line in captured.out.splitlines() if "speaks" in line]
    assert spoken == ["agent speaks", "caller speaks, 0.3 s", "agent speaks"]
    assert "s of speech heard" in captured.err
    assert DEMO_ACCOUNT.auth_token not in captured.out + captured.err


def test_interruption_is_measured(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller speaks into the answer; what is heard after that is counted in milliseconds."""
    with phone("tone 0.2", "answer 1.2", "clear on speech") as server:
        assert call(server, "--wav", question, "--barge-at", "0.3", "--json", "--timeout", "8") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["ended_by"], facts["warnings"]) == (True, "caller", [])
    assert 0 <= facts["cut_ms"] <= 100


def test_keys_are_pressed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a WAV the caller listens and presses keys."""
    with phone("tone 0.3", "two keys hang up") as server:
        assert call(server, "--dtmf", "1#") == 0
        assert [message["dtmf"]["digit"] for message in server.of("dtmf")] == ["1", "#"]
    assert capsys.readouterr().out.count("caller presses a key") == 2


@pytest.mark.parametrize(("behaviour", "arguments", "sentence"), [
    ("mark", ["--timeout", "0.5"], "no audio came"),
    ("refuse", [], "31920"),
    ("mark", ["--fault", "wrong_webhook_signature", "--timeout", "0.3"], "auth token"),
    ("bad messages", ["--timeout", "0.5"], "Twilio's debugger would say"),
])
def test_silence_is_a_failure_with_its_reason(
    behaviour: str, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, and the likeliest reason in one sentence."""
    with phone(behaviour) as server:
        assert call(server, *arguments) == 1
    assert sentence in capsys.readouterr().err


def test_server_that_does_not_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The webhook did not answer."""
    account = ["--account-sid", DEMO_ACCOUNT.sid, "--auth-token", "t"]
    assert main(["--url", "http://127.0.0.1:1/voice", *account, "--timeout", "0.3"]) == 1
    assert "./voice demo" in capsys.readouterr().err


def test_running_demo_is_found_by_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    """No option is needed when the demo has written how it is called."""
    with phone("tone 0.3", "close after 40") as server:
        demo_dir().mkdir(parents=True)
        twilio = {"voice_url": server.voice_url, "account_sid": DEMO_ACCOUNT.sid, "number": "+15005550100",
                  "auth_token": DEMO_ACCOUNT.auth_token}  # fmt: skip
        (demo_dir() / "demo.json").write_text(json.dumps({"twilio": twilio}), encoding="utf-8")
        assert main(["--json"]) == 0
        assert server.forms[0][1]["To"] == "+15005550100"
    assert json.loads(capsys.readouterr().out)["ended_by"] == "application"


@pytest.mark.parametrize("arguments", [
    ["--barge-at", "1"], ["--dtmf", "12x"], ["--route", "voice.example.com"],
])
def test_wrong_command_line_is_refused(arguments: list[str]) -> None:
    """Status 2, as every command line gives."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_wrong_files_and_faults_are_refused_before_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no WAV, a fault that does not exist, nobody to call."""
    with phone() as server:
        (tmp_path / "a.wav").write_bytes(b"no wav")
        assert call(server, "--wav", tmp_path / "a.wav") == 2
        assert call(server, "--wav", tmp_path / "missing.wav") == 2
        assert call(server, "--fault", "nonsense") == 2
        assert server.forms == []
    assert main([]) == 2
    assert "there are: " in capsys.readouterr().err
