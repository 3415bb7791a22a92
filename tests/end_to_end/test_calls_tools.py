"""What an agent does during a call: tools, knowledge, transfer, keys, goodbye; and what the log keeps of it: nothing.

All calls of this file are made at the same time on one server, which may reach the tools' service on loopback; each
test looks at one. The model is the simulator: it calls the first tool when the instructions say `[test tool]`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from server import knowledge_search
from services.ssrf import guarded_client
from services.supabase_client import open_http
from services.toolbox import Toolbox
from simulator import script
from simulator.twilio_caller import HangUp, Keys, heard, quiet
from tests.fakes.browser import eventually
from tests.fakes.phone_gateway import ASKS, CALLER, LOUD, MASTER, Made, PhoneGateway, Ring, length, level, part
from tests.fakes.scripted_http import Answer, ScriptedHttp
from tests.handlers.conftest import assert_settled

COLLEAGUE, OTHER_COLLEAGUE, FOREIGNER = "+15005550111", "+15005550112", "+15005550199"
DIGITS = "4711"
SLOW_S = 2.5
FILLER = "One moment, I am looking."
SAID_BY_TOOL = "canary-of-the-tool marmalade"
CALLS_TOOL = "[test tool]"


def lookup(path: str, service: str, **fields: Any) -> dict[str, Any]:
    """Return an HTTP tool of the service."""
    schema = {
        "type": "object", "properties": {"order": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["order", "count"], "additionalProperties": False,
    }  # fmt: skip
    return {"name": "look_up_order", "description": "Look an order up.", "url": service + path, "parameters": schema,
            "headers": {"X-Key": "canary-header-fennel"}, **fields}  # fmt: skip


def rings(service: str) -> dict[str, Ring]:
    """Return the calls; the tools are at `service`."""
    transfer = [{"builtin": "transfer_call"}]
    one, two = {"transfer_numbers": [COLLEAGUE]}, {"transfer_numbers": [COLLEAGUE, OTHER_COLLEAGUE]}
    keys = [{"builtin": "send_dtmf_wait"}]
    return {
        "clock": Ring({"instructions": CALLS_TOOL, "tools": [{"builtin": "current_time"}]}, ASKS),
        "http": Ring({"instructions": CALLS_TOOL, "tools": [lookup("/order", service)]}, ASKS),
        "slow": Ring({"instructions": CALLS_TOOL, "tools": [lookup("/slow", service, filler=FILLER)]}, ASKS),
        "late": Ring({"instructions": CALLS_TOOL, "tools": [lookup("/silent", service, timeout_s=1)]}, ASKS),
        "knowledge": Ring(
            {"instructions": CALLS_TOOL, "tools": [{"builtin": "search_knowledge"}],
             "knowledge": [{"vector_store_id": "vs_shop", "name": "Shop", "description": "opening hours"}]},
            ASKS,
        ),
        "transfer": Ring({"instructions": CALLS_TOOL, "tools": transfer, "call_settings": one}, [ASKS[0]]),
        "foreign": Ring({"instructions": CALLS_TOOL, "tools": transfer, "call_settings": two}, ASKS),
        "keys": Ring(
            {"instructions": CALLS_TOOL, "tools": [{**keys[0], "description": "Wait for four digits."}]},
            [ASKS[0], Keys(DIGITS, quiet(0.2, patience_s=1.5)), HangUp(quiet(1.5, patience_s=12.0))],
        ),
        "menu": Ring({}, [Keys("12#", quiet(0.6)), HangUp(quiet(1.5, patience_s=12.0))]),
        "goodbye": Ring({"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]}, [ASKS[0]]),
        "race": Ring(
            {"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]}, [ASKS[0], HangUp(heard(0.2))]
        ),
    }  # fmt: skip


def service() -> ScriptedHttp:
    """Return the service of the HTTP tools."""

    def slow(_: Any) -> Answer:
        running.wait_for(SLOW_S)
        return Answer(200, {"state": "slow but sure"})

    running = _Service({
        "/order": Answer(200, {"state": SAID_BY_TOOL}), "/slow": slow, "/silent": Answer(is_silent=True),
    })  # fmt: skip
    return running


class _Service(ScriptedHttp):
    """A service that can take its time."""

    def wait_for(self, seconds: float) -> None:
        """Return after a while, or when the service stops."""
        self._ended.wait(seconds)


def arguments(schema: Mapping[str, Any] | None, said: str) -> Any:
    """Return what the simulated model calls a tool with: a third number where two are allowed, digits, a question."""
    properties = (schema or {}).get("properties", {})
    if properties.get("number", {}).get("enum") == [COLLEAGUE, OTHER_COLLEAGUE]:
        return {"number": FOREIGNER}
    if "digits" in properties:
        return {"digits": len(DIGITS)}
    if "query" in properties:
        return {"query": "What are the opening hours?"}
    return script_arguments(schema, said)


script_arguments = script.arguments_for


@pytest.fixture(scope="module")
def gateway() -> Iterator[PhoneGateway]:
    """A server whose tools may be on loopback."""
    with pytest.MonkeyPatch.context() as patch, service() as tools, PhoneGateway(rings(tools.url)) as running:
        patch.setattr(script, "arguments_for", arguments)

        async def allow_loopback() -> None:
            context = running.server.context
            client, http = guarded_client(allow_private=True), open_http()
            context.toolbox = Toolbox(client, knowledge=knowledge_search(running.settings, http, context.keys))
            running.server._closing[:0] = [client.aclose, http.aclose]

        running.run(allow_loopback())
        yield running


@pytest.fixture(scope="module")
def calls(gateway: PhoneGateway) -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over the server holds nothing of them."""
    made = gateway.ring_all()
    yield made
    for call in made.values():
        assert call.record.rejected == []
        assert call.record.warnings == []
    assert_settled(gateway, 3.0, ())


def answer_of(call: Made) -> str:
    """Return the last thing the agent said; it was heard."""
    assert level(part(call.record.heard, call.speech[-1])) > LOUD
    return call.said("assistant")[-1]


def tools_of(call: Made) -> list[dict[str, Any]]:
    """Return the stored messages of tools."""
    return [row for row in call.messages if row["role"] == "tool"]


# ---------------------------------------------------------------------- tools


def test_the_time_is_told(calls: dict[str, Made]) -> None:
    """`current_time` runs, its output goes to the model with a request for a response, and the caller hears it."""
    call = calls["clock"]
    (output,) = call.told()
    assert set(output) == {"time", "weekday", "timezone"}
    assert output["weekday"] in answer_of(call)
    assert [row["metadata"]["name"] for row in tools_of(call)] == ["current_time"]


def test_a_service_of_the_owner_is_asked(calls: dict[str, Made]) -> None:
    """An HTTP tool's arguments pass its schema, its answer is spoken, and the conversation goes on."""
    call = calls["http"]
    assert call.told() == [{"state": SAID_BY_TOOL}]
    assert SAID_BY_TOOL in answer_of(call)
    (stored,) = tools_of(call)
    assert json.loads(stored["metadata"]["arguments"]) == {"order": "A-1001", "count": 2}


def test_a_slow_service_is_bridged_by_a_few_words(calls: dict[str, Made]) -> None:
    """The filler is heard while the tool runs, and its answer afterwards."""
    call = calls["slow"]
    assert call.said("assistant")[1:] == [FILLER, 'The tool answered: {"state":"slow but sure"}.']
    filler, answer = call.speech[1], call.speech[2]
    assert length(filler) > 0.8 and answer.begins_s > filler.ends_s


def test_a_service_that_does_not_answer_does_not_silence_the_agent(calls: dict[str, Made]) -> None:
    """After its deadline the model is told, and speaks."""
    assert calls["late"].told() == [{"error": "The tool did not answer in time."}]
    assert "did not answer in time" in answer_of(calls["late"])


def test_knowledge_is_searched(calls: dict[str, Made], gateway: PhoneGateway) -> None:
    """The vector store's finding reaches the model through a function tool, never as `file_search`."""
    call = calls["knowledge"]
    (session,) = call.sessions
    assert session.config is not None
    assert [(tool["type"], tool["name"]) for tool in session.config["tools"]] == [("function", "search_knowledge")]
    (output,) = call.told()
    assert "Monday to Friday" in json.dumps(output)
    assert "The tool answered" in answer_of(call)


# ---------------------------------------------------------------------- transfer


def test_a_transfer_dials_and_leaves_the_call_alone(calls: dict[str, Made], gateway: PhoneGateway) -> None:
    """Twilio dials the allowed number; our end of the stream neither completes the call nor apologises."""
    call = calls["transfer"]
    assert call.record.dialled == [COLLEAGUE]
    updates = [line for line in gateway.twilio.rest_requests if call.sid in line]
    assert len(updates) == 1
    assert call.record.ended_by == "application" and call.record.status == "completed"
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("agent_ended", "transferred")
    assert call.record.spoken == [] and len(call.speech) == 1


def test_a_number_that_is_not_allowed_is_refused_to_the_model(calls: dict[str, Made]) -> None:
    """Nobody is dialled; the model is told why and goes on talking."""
    call = calls["foreign"]
    assert call.record.dialled == []
    assert call.told() == [{"error": "Use one of the numbers you may transfer to."}]
    assert "Use one of the numbers" in answer_of(call)


# ---------------------------------------------------------------------- keys


def test_digits_are_collected_for_the_model_and_for_nobody_else(calls: dict[str, Made]) -> None:
    """The tool's output holds the digits; the transcript holds a placeholder."""
    call = calls["keys"]
    assert call.told() == [{"digits": DIGITS}]
    assert [row["content"] for row in tools_of(call)] == ["[keys pressed]"]
    stored = [row for row in call.messages if row["role"] != "assistant"]
    assert DIGITS not in json.dumps(stored)


def test_keys_nobody_asked_for_are_one_message(calls: dict[str, Made]) -> None:
    """`12#` is told to the model once, and answered."""
    call = calls["menu"]
    (session,) = call.sessions
    texts = [event["item"]["content"][0]["text"] for event in session.events("conversation.item.create")]
    assert texts == ["The caller pressed 12# on the telephone's keys."]
    assert call.said("user") == ["[keys pressed]"] and len(call.speech) >= 2


# ---------------------------------------------------------------------- goodbye


def test_a_goodbye_is_heard_to_its_end_before_the_line_is_released(
    calls: dict[str, Made], gateway: PhoneGateway
) -> None:
    """`end_call` completes the call by REST after the last word, and within two seconds of it."""
    call = calls["goodbye"]
    goodbye = [row for row in call.messages if row["role"] == "assistant"][-1]
    assert (goodbye["content"], goodbye["status"]) == ("Goodbye.", "complete")
    assert goodbye["heard_ms"] == goodbye["spoken_ms"]
    last = call.speech[-1]
    assert length(last) > 0.3 and len(call.record.heard) / 8_000 - last.ends_s < 2.0
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("agent_ended", "agent_ended")
    assert sum(call.sid in line for line in gateway.twilio.rest_requests) == 1


def test_a_caller_who_hangs_up_during_the_goodbye_is_no_error(calls: dict[str, Made], gateway: PhoneGateway) -> None:
    """Both hang up at once: the call is over, and nothing in the log says that something failed."""
    call = calls["race"]
    assert call.record.ended_by == "caller"
    assert call.conversation["end_reason"] in {"client_left", "agent_ended"}
    assert "call not changed" not in gateway.log_text()


# ---------------------------------------------------------------------- what is kept


def test_no_log_line_says_who_called_or_what_was_said(calls: dict[str, Made], gateway: PhoneGateway) -> None:
    """At DEBUG: no number, token, digit, key, sentence, argument or address of any call of this file."""
    tokens = [parameter for call in calls.values() for parameter in _tokens(call)]
    assert len(tokens) == len(calls)
    eventually(lambda: gateway.log_text().count("conversation ended") >= len(calls), 5.0)
    log = gateway.log_text()
    assert log.count("conversation ended") == len(calls)
    numbers = [gateway.number_of(name) for name in gateway.rings]
    secrets = [*numbers, CALLER, COLLEAGUE, OTHER_COLLEAGUE, FOREIGNER, *tokens, MASTER.auth_token, SAID_BY_TOOL]
    secrets += ["marmalade", "fennel", "A-1001", "12#", FILLER, "Good morning", "Monday", "seconds)", CALLS_TOOL]
    for secret in secrets:
        for spelled in (secret, secret.removeprefix("+"), base64.b64encode(secret.encode()).decode().rstrip("=")):
            assert spelled not in log, [line for line in log.splitlines() if spelled in line]
    assert f"={DIGITS}" not in log and f'"{DIGITS}' not in log


def _tokens(call: Made) -> list[str]:
    """Return the one-time tokens of a call's documents."""
    marker = 'name="token" value="'
    return [document.split(marker)[1].split('"')[0] for document in call.record.twiml if marker in document]
