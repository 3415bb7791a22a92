"""Nothing secret or personal in any log line at DEBUG, nor in metrics or health (promise P12)."""

from __future__ import annotations

import base64
import json

import httpx
import websocket

from tests.fakes.browser import AGENTS, TOOLED_ID, USER_ID, Browser, eventually

SPOKEN = "my spoken canary is heliotrope"
TYPED = "my typed canary is marmalade"
KEY = "sk-canary-key-peppercorn-0123456789"
BAD_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOiJzYWZmcm9uIn0.c2FmZnJvbi1zaWduYXR1cmU"
OPAQUE_TOKEN = "opaque-canary-token-tamarind"
INSTRUCTIONS = "instructions canary wintergreen"
EXCEPTION = "exception canary cardamom"
PHONE = "+4915112345678"

TALKER = {
    **next(row for row in AGENTS if row["id"] == TOOLED_ID),
    "instructions": INSTRUCTIONS,
    "greeting": "greeting canary juniper",
    "tools": [
        {"builtin": "current_time"},
        {
            "name": "look_up",
            "url": "https://canary-host-vanilla.invalid/path-canary?apikey=canary-query-nutmeg",
            "headers": {"X-Key": "canary-header-fennel"},
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
        },
    ],
}

CANARIES = (
    *("heliotrope", "marmalade", "peppercorn", "saffron", "c2FmZnJvbi1zaWduYXR1cmU", "eyJjYW5hcnkiOi", "tamarind"),
    *("wintergreen", "cardamom", "juniper", "vanilla", "nutmeg", "fennel", "path-canary", "4915112345678", "sk-canary"),
)


def hold_a_whole_talk(gateway, question: bytes) -> None:
    """Greeting, speech, typing with a number, tools, refusals, a lost link, a refresh that fails."""
    with Browser(gateway, agent_id=TOOLED_ID) as browser:
        browser.live()
        browser.quiet()
        browser.speak(question)
        browser.until("conversation.item.input_audio_transcription.completed", transcript=SPOKEN)
        browser.quiet()
        for said in (TYPED, f"call me at {PHONE}", "test two tools marmalade", "test bad tool", "test error"):
            browser.type_text(said)
            browser.quiet()
        for text in (TYPED, '{"type":"marmalade"}', '{"type":"session.update","session":{"instructions":"marmalade"}}'):
            browser.socket.send(text)
        browser.send("session.refresh", token=BAD_TOKEN)
        browser.socket.send_binary(TYPED.encode())

        async def drop() -> None:
            gateway.simulator.faults.now("drop")

        gateway.run(drop())
        browser.notice("reconnected")
        browser.type_text(TYPED)
        browser.quiet()
        browser.leave()


def knock_on_every_door(gateway, good: str) -> None:
    """Refused tokens in every place a token may be, and strangers' requests with tokens in their addresses."""
    for token in (BAD_TOKEN, OPAQUE_TOKEN):
        with Browser(gateway, token=token) as browser:
            browser.end()
        with Browser(gateway, "v1/realtime", token="", header=[f"Authorization: Bearer {token}"]) as browser:
            browser.end()
        with Browser(gateway, token="", subprotocols=["realtime", f"openai-insecure-api-key.{token}"]) as browser:
            browser.end()
        for path in (f"/nothing?token={token}", f"/?token={token}", f"/v1/realtime?token={token}", f"/{token}"):
            httpx.get(gateway.url + path, headers={"Authorization": f"Bearer {token}", "Cookie": f"sid={token}"})
        httpx.post(f"{gateway.url}/api/tickets", headers={"Authorization": f"Bearer {token}"}, content=token)
    with Browser(gateway, query={"voice": OPAQUE_TOKEN, "conversation_id": "tamarind"}) as browser:
        browser.end()
    try:
        websocket.create_connection(f"{gateway.ws_url}?token={good}", origin="https://tamarind.example", timeout=5)
    except websocket.WebSocketBadStatusException:
        pass  # the origin is foreign


def break_things(gateway, monkeypatch) -> None:
    """Exceptions whose text is personal, in a session, in a handler of Tornado's and in a callback of the loop."""

    def broken(*_, **__):
        raise ValueError(f"{EXCEPTION} {TYPED} {KEY} {BAD_TOKEN}")

    with monkeypatch.context() as patch:
        patch.setattr("core.session.BrowserSession.client_received", broken)
        patch.setattr("handlers.browser.render_talk_page", broken)
        with Browser(gateway) as browser:
            browser.live()
            browser.type_text(TYPED)
            browser.end()
        httpx.get(f"{gateway.url}/?token={BAD_TOKEN}", headers={"Cookie": OPAQUE_TOKEN})
    gateway._loop.call_soon_threadsafe(broken, TYPED)


def test_whole_talk_with_accidents_leaves_no_trace_of_what_it_was_about(make, question, monkeypatch, capfd):
    """Tokens, keys, numbers, sentences, arguments, addresses and exception texts: in no log, metric or report."""
    gateway = make(
        {"OPENAI_API_KEY": KEY},
        accidents=("failed", "xception", "http request", "ncaught"),
        settle_s=3.0,
        seed=(TALKER, *(row for row in AGENTS if row["id"] != TOOLED_ID)),
        transcripts=(SPOKEN,),
        speed=8.0,
    )
    good = gateway.token()
    hold_a_whole_talk(gateway, question)
    knock_on_every_door(gateway, good)
    gateway.simulator.faults.next("refuse_401")
    gateway.simulator.faults.next("invalid_api_key")
    with Browser(gateway) as browser:
        assert browser.end().code == 4502
    break_things(gateway, monkeypatch)
    eventually(lambda: "ValueError" in gateway.log_text())
    shown = httpx.get(f"{gateway.health_url}/metrics").text + httpx.get(f"{gateway.url}/health").text
    everything = gateway.log_text() + shown + "".join(capfd.readouterr())
    assert "conversation ended" in everything and "connection refused" in everything and "tool called" in everything
    encoded = [base64.b64encode(text.encode()).decode()[:-4] for text in (SPOKEN, TYPED)]
    for canary in (*CANARIES, *encoded, good.split(".")[1], good.split(".")[2]):
        assert canary not in everything, [line for line in everything.splitlines() if canary in line]
    assert json.dumps(shown) and USER_ID not in shown
