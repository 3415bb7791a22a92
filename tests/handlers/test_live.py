"""What a live session looks like to an operator, asked through the control socket of its worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.overview import overview
from services.siblings import Answer, ask_all_sync
from simulator.audio import rms, samples_of
from simulator.twilio_caller import Speak
from tests.fakes.browser import INSTRUCTIONS_CANARY, PLAIN_ID, TOOLED_ID, USER_ID, Browser, eventually
from tests.fakes.gateway import Gateway
from tests.fakes.phone_gateway import SPEECH, PhoneGateway, Ring, heard_apology

NOBODY = "00000000-0000-4000-8000-00000000dead"


def ask(gateway: Gateway, path: str, method: str = "GET", body: Any = None) -> Answer:
    """Ask the gateway's only worker."""
    (answer,) = ask_all_sync(Path(gateway.settings.state_dir) / "run", method, path, body).values()
    return answer


def session_rows(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the live rows."""
    rows: list[dict[str, Any]] = ask(gateway, "/sessions").json()["sessions"]
    return rows


def test_idle_process_tells_its_figures(gateway: Gateway) -> None:
    """Without a session there are limits, version and memory, and every figure that the overview is made of."""
    part = ask(gateway, "/sessions").json()
    assert part["limits"]["max_connections"] == 1000 and part["version"] == "1.0.0"
    assert part["rss_bytes"] > 10_000_000 and part["uptime_s"] >= 0 and part["draining"] is False
    assert overview({"0": part})["active"] == 0


def test_row_follows_the_session(gateway: Gateway) -> None:
    """A row has who, where and how it goes, and nothing that was said; it is gone when the session is."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("a sentence nobody may see in a table")
        browser.answer()
        (row,) = session_rows(gateway)
        assert (row["conversation_id"], row["agent_id"], row["agent"]) == (conversation_id, PLAIN_ID, "Plain")
        assert (row["user_id"], row["channel"], row["state"], row["call_sid"]) == (USER_ID, "browser", "live", None)
        assert row["turns"] >= 1 and row["cost_usd"] > 0 and row["bytes_in"] > 0 and row["bytes_out"] > 0
        assert row["first_audio_ms"] is not None and row["last_audio_ms"] is not None
        assert 0 <= row["age_s"] < 30 and abs(time.time() - row["age_s"] - row["since"]) < 5
        assert "sentence" not in str(row) and INSTRUCTIONS_CANARY not in str(row)
        browser.leave()
    assert eventually(lambda: session_rows(gateway) == [])
    part = ask(gateway, "/sessions").json()
    assert part["ended"] == {"client_left": 1} and part["recent"]["ended"] == 1 and part["cost_today_usd"] > 0


def test_levels_are_those_of_the_newest_sound(make: Callable[..., Gateway], question: bytes) -> None:
    """Speech shows a level while it comes and none when nothing follows; the agent's shows while it speaks."""
    gateway = make(speed=1.0)
    with Browser(gateway) as browser:
        browser.live()
        tenths = [question[at : at + 4_800] for at in range(0, len(question), 4_800)]
        loud = max(tenths, key=lambda piece: rms(samples_of(piece)))

        def level_while_speaking() -> float:
            browser.speak(loud)
            return float(session_rows(gateway)[0]["level_in"])

        assert eventually(lambda: level_while_speaking() > 0.01, 8.0)
        assert eventually(lambda: session_rows(gateway)[0]["level_in"] == 0.0, 8.0)
        browser.send("input_audio_buffer.clear")
        browser.type_text("test long answer")
        browser.until("response.audio.delta")
        assert eventually(lambda: session_rows(gateway)[0]["level_out"] > 0.004, 8.0)
        assert session_rows(gateway)[0]["speaks"] in {"agent", "user"}


def test_detail_has_transcript_events_and_settings(gateway: Gateway) -> None:
    """Opened, a session shows what was said, which events came and what was set up; the prompt only when asked for."""
    with Browser(gateway, agent_id=TOOLED_ID) as browser:
        conversation_id = browser.live()
        browser.type_text("good morning")
        said = browser.answer()
        detail = ask(gateway, f"/sessions/{conversation_id}").json()
        turns = [(turn["role"], turn["text"]) for turn in detail["transcript"]]
        assert turns[0] == ("user", "good morning") and turns[-1] == ("assistant", said)
        names = [event["type"] for event in detail["events"]]
        assert "conversation.item.create" in names and "response.done" in names
        assert not any("audio.delta" in name for name in names)
        assert {event["side"] for event in detail["events"]} == {"client", "model"}
        assert detail["settings"]["voice"] == "sage" and "end_call" in detail["settings"]["tools"]
        assert INSTRUCTIONS_CANARY not in str(detail)
        with_prompt = ask(gateway, f"/sessions/{conversation_id}?prompt=1").json()
        assert with_prompt["settings"]["instructions"] == INSTRUCTIONS_CANARY


def test_answer_is_seen_while_it_grows(make: Callable[..., Gateway]) -> None:
    """The words of an answer that is being given are there before it is done."""
    gateway = make(speed=1.0)
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("test long answer")
        browser.until("response.audio_transcript.delta")

        def growing() -> list[str]:
            turns = ask(gateway, f"/sessions/{conversation_id}").json()["transcript"]
            return [turn["text"] for turn in turns if turn["status"] == "growing" and turn["text"]]

        first = eventually(growing)
        assert first and eventually(lambda: growing() and len(growing()[-1]) > len(first[-1]), 10.0)


def test_operator_ends_a_session_politely(gateway: Gateway) -> None:
    """The client is closed with 1000, the end reason is agent_ended, the log says who did it."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        answer = ask(gateway, f"/sessions/{conversation_id}/end", "POST", {"operator": "a test"})
        assert answer.json() == {"ended": True}
        end = browser.end()
    assert (end.code, end.error) == (1000, None)
    assert eventually(lambda: "end_reason=agent_ended" in gateway.log_text())
    (line,) = [line for line in gateway.log_text().splitlines() if "session ended by operator" in line]
    assert 'operator="a test"' in line and conversation_id in line


def test_call_is_seen_and_hung_up() -> None:
    """A call's row names the call, shows the caller's voice, and ends as a call does when the agent ends it."""
    rings = {"talker": Ring(actions=(Speak(SPEECH * 8),))}
    with PhoneGateway(rings) as gateway:
        call = gateway.ring("talker")
        (row,) = eventually(lambda: [row for row in session_rows(gateway) if row["state"] == "live"], 10.0)
        assert (row["channel"], row["call_sid"], row["agent"]) == ("phone", call.sid, "talker")
        assert "+1500" not in str(session_rows(gateway)), "no number is told"
        assert eventually(lambda: session_rows(gateway)[0]["level_in"] > 0.005, 10.0)
        assert ask(gateway, f"/sessions/{row['conversation_id']}/end", "POST", {}).status == 200
        assert call.conversation["end_reason"] == call.row["end_reason"] == "agent_ended"
        assert heard_apology(call), "nobody is hung up on without a word"


@pytest.mark.parametrize(("method", "path"), [("GET", f"/sessions/{NOBODY}"), ("POST", f"/sessions/{NOBODY}/end")])
def test_session_that_is_not_here_is_not_found(gateway: Gateway, method: str, path: str) -> None:
    """A worker answers 404 for what it does not hold."""
    assert ask(gateway, path, method, {} if method == "POST" else None).status == 404


def test_troubles_are_remembered(gateway: Gateway) -> None:
    """Warnings are told with their fields, as the files have them."""
    gateway.server.context.logger.warning("something outside failed", cause="a test", token="canary-token")
    trouble = ask(gateway, "/sessions").json()["troubles"][-1]
    assert (trouble["level"], trouble["event"], trouble["fields"]["cause"]) == (
        "warning", "something outside failed", "a test",
    )  # fmt: skip
    assert "canary" not in str(trouble)
