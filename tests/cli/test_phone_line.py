"""Whom a simulated call goes to: options first, then the demo's file, then the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.demo_data import demo_dir
from cli.phone_line import DEFAULT_NUMBER, Line, NoLine, demo_file, find_line, read_demo

SID, TOKEN = "AC" + "1" * 32, "token-of-the-test"
DEMO: dict[str, Any] = {
    "agents": [{"id": "a1", "name": "Rosa, receptionist"}, {"id": "a2", "name": "Tom, tutor"}],
    "twilio": {
        "voice_url": "http://127.0.0.1:8080/api/twilio/voice",
        "account_sid": SID,
        "auth_token": TOKEN,
        "number": "+15005550100",
        "numbers": [{"number": "+15005550101", "agent_id": "a1"}],
        "api_url": "http://127.0.0.1:8091",
    },
}


def line(to: str | None = None, url: str | None = None, demo: Any = DEMO, **settings: str) -> Line:
    """Return the line for these options."""
    return find_line(to=to, url=url, account=(None, None), demo=demo, settings=settings)


def test_running_demo_is_called_without_options() -> None:
    """Its file has everything, also the port of the REST API; the token is not printed."""
    found = line()
    assert found == Line("http://127.0.0.1:8080/api/twilio/voice", "+15005550100", SID, TOKEN, "http://127.0.0.1:8091")
    assert found.api_port == 8091
    assert TOKEN not in repr(found)


def test_options_win_over_demo_and_demo_over_settings() -> None:
    """Each value for itself."""
    other = "AC" + "2" * 32
    found = find_line(to="+1 (500) 555-0199", url="https://a.example/voice", account=(other, "mine"), demo=DEMO,
                      settings={"TWILIO_AUTH_TOKEN": "theirs"})  # fmt: skip
    assert (found.voice_url, found.number) == ("https://a.example/voice", "+15005550199")
    assert (found.account_sid, found.auth_token) == (other, "mine")


@pytest.mark.parametrize("public", ["https://a.example", "wss://a.example/"])
def test_settings_of_the_server_are_enough(public: str) -> None:
    """PUBLIC_URL names the webhook, TWILIO_* sign; any number will do."""
    found = line(demo={}, PUBLIC_URL=public, TWILIO_ACCOUNT_SID=SID, TWILIO_AUTH_TOKEN=TOKEN)
    assert (found.voice_url, found.number) == ("https://a.example/api/twilio/voice", DEFAULT_NUMBER)
    assert found.api_port == 0


def test_agent_is_called_by_id_or_beginning_of_its_name() -> None:
    """The demo's file knows the numbers."""
    assert line("a1").number == line("rosa").number == "+15005550101"


@pytest.mark.parametrize(("options", "sentence"), [
    ({"demo": {}}, "start ./voice demo"),
    ({"url": "wss://a.example/voice"}, "https://"),
    ({"demo": {}, "url": "https://a.example/voice"}, "--account-sid"),
    ({"demo": {"twilio": {**DEMO["twilio"], "account_sid": "AC1"}}}, "32 hexadecimal"),
    ({"to": "Tom"}, "no number"),
    ({"to": "Eva"}, "Rosa, receptionist, Tom, tutor"),
    ({"to": "Eva", "demo": {**DEMO, "agents": None}}, "neither a number"),
])
def test_what_is_missing_is_said(options: dict[str, Any], sentence: str) -> None:
    """One sentence that names the option."""
    with pytest.raises(NoLine, match=sentence):
        line(**options)


def test_demo_file_is_read_and_a_damaged_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the demo's folder."""
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    assert demo_file() == demo_dir() / "demo.json"
    assert read_demo(demo_file()) == {}
    demo_dir().mkdir()
    for text, expected in ((json.dumps(DEMO), DEMO), ("{", {}), ("[]", {})):
        demo_file().write_text(text, encoding="utf-8")
        assert read_demo(demo_file()) == expected
