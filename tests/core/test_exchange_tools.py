"""Calls of tools, and the races of response.create."""

from __future__ import annotations

from typing import Any

from tests.dialogue import Dialogue

TOOLS = {"tools": [{"name": "stock", "url": "https://shop.example"}, {"builtin": "end_call"}]}
TEXT = "one two three four five"
STARTED = "input_audio_buffer.speech_started"


def talking(seconds: int = 2, **fields: Any) -> Dialogue:
    """Return a dialogue in which the agent's answer, sent at once, is being heard."""
    talk = Dialogue(fields).live().asks("u1", "Hi?")
    return talk.answers("r1", "i1", TEXT, seconds * 1000)


def calling(*call_ids: str, speech: str = "") -> Dialogue:
    """Return a dialogue in which the model has made calls and its response is done."""
    talk = Dialogue({"agent": TOOLS}).live().asks("u1", "Boots?").begins_answer("r1", "i1")
    if speech:
        talk.says("r1", "i1", speech, 500)
    for call_id in call_ids:
        talk.calls("r1", call_id, "stock", '{"size":42}').gives(f"run stock {call_id}")
    talk.ends_answer("r1")
    return talk


def test_a_call_is_run_and_its_result_spoken() -> None:
    """The output goes to the model, is stored once, and exactly one response is asked for."""
    talk = calling("c1")
    talk.tool("c1", "3 pairs").gives(
        "save 2 tool '3 pairs' complete",
        "model: function_call_output c1",
        "model: response.create gw_rc_1",
    )
    talk.tool("c1", "3 pairs").gives()


def test_two_parallel_calls_lead_to_one_response() -> None:
    """The model is asked to go on when the last result is in."""
    talk = calling("c1", "c2")
    talk.tool("c2", "b").gives("save 2 tool 'b' complete", "model: function_call_output c2")
    talk.tool("c1", "a").gives(
        "save 3 tool 'a' complete", "model: function_call_output c1", "model: response.create gw_rc_1"
    )


def test_a_call_announced_twice_is_run_once() -> None:
    """A second output_item.done, and the other event that announces it, trigger nothing."""
    talk = calling("c1")
    talk.calls("r1", "c1", "stock").gives()
    talk.model("response.function_call_arguments.done", call_id="c1", arguments="{}", name="stock").gives()


def test_calls_that_are_none() -> None:
    """An incomplete call and one without an id are left alone; a message that is done is shown."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "stock", status="incomplete").gives()
    talk.calls("r1", None, "stock").gives()
    item = {"id": "i1", "type": "message", "role": "assistant", "content": []}
    talk.model("response.output_item.done", response_id="r1", item=item).gives("client: response.output_item.done")


def test_malformed_arguments_go_to_the_tool() -> None:
    """The tool answers that it could not read them; the conversation goes on."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    [command] = talk.calls("r1", "c1", "stock", '{"size":').commands
    assert command.arguments == '{"size":'  # type: ignore[union-attr]


def test_results_wait_for_the_running_response() -> None:
    """A result that comes while a response runs is sent at once and answered after it."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "stock")
    talk.tool("c1", "a").gives("save 1 tool 'a' complete", "model: function_call_output c1")
    talk.ends_answer("r1").gives("client: response.done", "model: response.create gw_rc_1")


def test_the_results_of_a_cancelled_response_are_discarded() -> None:
    """The person cut in before the calls were confirmed: what they bring is not wanted."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "stock")
    talk.model(STARTED, item_id="u1")
    talk.ends_answer("r1", "cancelled")
    talk.tool("c1", "a").gives()


def test_keys_of_the_telephone_are_told_to_the_model() -> None:
    """The digits go to the model and an answer is asked for; the stored turn does not hold them."""
    talk = Dialogue().live()
    step = talk._fact("keys", talk.conversation.exchange.keys_pressed("1234", talk.now))
    assert "system" in step.told[0]
    assert "pressed 1234 on" in step.told[0]
    assert step.told[-1] == "model: response.create gw_rc_1"
    [turn] = step.turns
    assert turn.role == "user"
    assert "1234" not in turn.content


def test_what_is_stored_of_a_call_is_clean() -> None:
    """The name and arguments are kept for a resume, without what a database refuses."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "call_9", "stock", "a\x00b")
    [turn] = talk.tool("call_9", "x").turns
    assert turn.item_id == "call_9"
    assert turn.metadata == {"name": "stock", "call_id": "call_9", "arguments": "ab"}


def test_a_client_cannot_ask_while_a_response_runs() -> None:
    """The client gets OpenAI's own error; nothing goes upstream."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.client("response.create", event_id="mine").gives("client: error conversation_already_has_active_response")


def test_cancel_then_create() -> None:
    """The create goes out when the cancelled response is done, with the fields the client gave."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.client("response.cancel").gives("model: response.cancel")
    talk.client("response.create", response={"metadata": {"a": "b"}}).gives()
    step = talk.ends_answer("r1", "cancelled")
    assert step.told[-1] == "model: response.create gw_rc_1"
    assert step.sent[-1]["response"] == {"metadata": {"a": "b"}}


def test_a_create_that_races_the_servers_own_is_sent_once_more() -> None:
    """The collision is nobody's fault: the client hears nothing of it and gets its response."""
    talk = Dialogue().live()
    talk.client("response.create", event_id="mine").gives("model: response.create gw_rc_1")
    talk.model("response.created", response={"id": "r_vad"})
    code = "conversation_already_has_active_response"
    talk.model("error", error={"code": code, "event_id": "gw_rc_1"}).gives()
    talk.ends_answer("r_vad").gives("client: response.done", "model: response.create gw_rc_2")
    step = talk.model("error", error={"code": "invalid_value", "event_id": "gw_rc_2", "message": "No."})
    assert step.events[0]["error"]["event_id"] == "mine"


def test_speech_the_server_could_not_answer_is_answered_after_all() -> None:
    """Its own create failed because a response ran; ours follows when that is done."""
    talk = Dialogue({"agent": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}).live()
    talk.begins_answer("r1", "i1").asks("u1", "And?")
    talk.model("error", error={"code": "conversation_already_has_active_response"}).gives()
    talk.ends_answer("r1").gives("client: response.done", "model: response.create gw_rc_1")
