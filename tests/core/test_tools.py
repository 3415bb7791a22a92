"""Tools as the model sees them, and the calls it makes."""

from __future__ import annotations

import pytest

from core.agent import BUILTIN_TOOLS
from core.tools import MAX_OUTPUT_CHARS, PHONE_ONLY, ToolCalls, definitions, output_item
from tests.dialogue import agent

ALL = [{"builtin": name} for name in BUILTIN_TOOLS]


def names(columns: dict[str, object], channel: str = "phone") -> list[str]:
    """Return the names of the functions an agent has."""
    return [tool["name"] for tool in definitions(agent(**columns), channel=channel)]


def test_every_builtin_tool_has_a_definition_the_api_takes() -> None:
    """Each is a flat function with a description and a schema."""
    for tool in definitions(agent(tools=ALL), channel="phone"):
        assert set(tool) == {"type", "name", "description", "parameters"}
        assert tool["type"] == "function"
        assert tool["description"]
        assert tool["parameters"]["type"] == "object"


def test_tools_of_the_telephone_are_not_offered_to_browsers() -> None:
    """A page has no line to transfer and no keys to press."""
    assert set(BUILTIN_TOOLS) - set(names({"tools": ALL}, "browser")) == PHONE_ONLY


def test_an_agent_with_knowledge_can_search_it() -> None:
    """The search is added unless the owner placed it, and says what is in the store."""
    known = [{"vector_store_id": "vs_1", "name": "Prices", "description": "of shoes"}, {"vector_store_id": "vs_2"}]
    assert names({"knowledge": known}) == ["search_knowledge"]
    assert names({"knowledge": known, "tools": [{"builtin": "search_knowledge"}]}) == ["search_knowledge"]
    description = definitions(agent(knowledge=known), channel="phone")[0]["description"]
    assert description.endswith("It holds: Prices: of shoes.")
    nameless = definitions(agent(knowledge=[{"vector_store_id": "vs_2"}]), channel="phone")[0]["description"]
    assert "It holds" not in nameless


def test_an_owners_own_search_takes_the_place_of_the_builtin_one() -> None:
    """Two functions of one name would make the API refuse the whole session."""
    own = {"name": "search_knowledge", "url": "https://shop.example/search"}
    assert names({"knowledge": [{"vector_store_id": "vs_1"}], "tools": [own]}) == ["search_knowledge"]


def test_a_call_can_only_be_transferred_where_the_owner_allows() -> None:
    """The model chooses from the listed numbers; without a list its choice is checked elsewhere."""
    tools = [{"builtin": "transfer_call"}]
    listed = definitions(agent(tools=tools, call_settings={"transfer_numbers": ["+4912345"]}), channel="phone")[0]
    assert listed["parameters"]["properties"]["number"]["enum"] == ["+4912345"]
    unlisted = definitions(agent(tools=tools), channel="phone")[0]
    assert "enum" not in unlisted["parameters"]["properties"]["number"]


def test_the_owners_words_describe_a_tool() -> None:
    """A custom tool is given as configured; a builtin one takes the owner's description over ours."""
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
    own = {"name": "stock", "description": "Look into the stock.", "url": "https://shop.example", "parameters": schema}
    tools = [own, {"builtin": "end_call", "description": "Hang up."}]
    stock, end_call = definitions(agent(tools=tools), channel="phone")
    assert stock == {
        "type": "function",
        "name": "stock",
        "description": "Look into the stock.",
        "parameters": schema,
    }
    assert end_call["description"] == "Hang up."


CALL = {"type": "function_call", "call_id": "c1", "name": "stock", "arguments": '{"size":42}'}


def test_a_call_is_run_once_and_answered_once() -> None:
    """The same call announced twice is one call; its result is taken once."""
    calls = ToolCalls()
    call = calls.begin(CALL, "r1")
    assert call is not None
    assert (call.call_id, call.name, call.arguments, call.response_id) == ("c1", "stock", '{"size":42}', "r1")
    assert calls.begin(CALL, "r1") is None
    assert calls
    assert "c1" in calls
    assert calls.finish("c1") is call
    assert "c1" not in calls
    assert calls.finish("c1") is None
    assert not calls
    assert calls.begin(CALL, "r1") is None


@pytest.mark.parametrize("missing", ["call_id", "name"])
def test_a_call_without_its_id_or_name_is_no_call(missing: str) -> None:
    """What cannot be answered or run is left alone."""
    assert ToolCalls().begin({**CALL, missing: None}, "r1") is None


def test_arguments_are_text_whatever_came() -> None:
    """Missing arguments are an empty object; malformed ones go to the tool, whose answer tells the model."""
    calls = ToolCalls()
    first, second = calls.begin({**CALL, "arguments": None}, "r1"), calls.begin({**CALL, "call_id": "c2"}, "r1")
    broken = calls.begin({**CALL, "call_id": "c3", "arguments": '{"size":'}, "r1")
    assert first and second and broken
    assert first.arguments == "{}"
    assert broken.arguments == '{"size":'


def test_results_of_a_cancelled_response_are_not_wanted() -> None:
    """What its calls bring is dropped; calls of other responses are awaited on, until the link is gone."""
    calls = ToolCalls()
    calls.begin(CALL, "r1")
    calls.begin({**CALL, "call_id": "c2"}, "r2")
    calls.forget("r1")
    assert calls.finish("c1") is None
    assert calls
    calls.forget_all()
    assert calls.finish("c2") is None


def test_an_endless_output_is_cut() -> None:
    """A tool that answers with megabytes does not fill the model's context."""
    assert output_item("c1", "short") == {"type": "function_call_output", "call_id": "c1", "output": "short"}
    cut = output_item("c1", "x" * (MAX_OUTPUT_CHARS + 1))["output"]
    assert len(cut) < MAX_OUTPUT_CHARS + 100
    assert "cut" in cut


def test_arguments_are_in_no_repr() -> None:
    """A call in a traceback does not show what was asked for."""
    call = ToolCalls().begin(CALL, "r1")
    assert "42" not in repr(call)
