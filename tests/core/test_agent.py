"""An agent's row is read with fallbacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.agent import (
    CLIENT_MAY,
    CLIENT_MAY_NEVER,
    RETIRED_VOICES,
    VOICES,
    Agent,
    CallSettings,
    KnowledgeSource,
    agent_from_row,
    valid_voice,
)

IDS = {"id": "a1", "user_id": "u1"}


def read(**columns: Any) -> Agent:
    """Return the agent of a row with these columns."""
    return agent_from_row({**IDS, **columns})


def test_a_row_with_ids_only_is_an_agent() -> None:
    """Every column has a default; nulls and empty texts are as good as none, and nothing counts as repaired."""
    plain = read()
    assert plain == Agent("a1", "u1")
    columns = ("name", "instructions", "voice", "speed", "tools", "client_may", "call_settings", "turn_detection")
    assert read(**dict.fromkeys(columns)) == read(**dict.fromkeys(columns, "")) == plain


@pytest.mark.parametrize("missing", ["id", "user_id"])
def test_a_row_without_its_ids_is_none(missing: str) -> None:
    """An agent without an owner must not exist."""
    with pytest.raises(KeyError):
        agent_from_row({name: value for name, value in IDS.items() if name != missing})


def test_a_complete_row() -> None:
    """Every column reaches its place."""
    tool = {
        "name": "stock",
        "description": "Look.",
        "url": "https://shop.example/stock",
        "method": "get",
        "headers": {"X-Key": 5},
        "timeout_s": 3,
        "filler": "One moment.",
        "parameters": {"type": "object"},
    }
    agent = read(
        name="Ada",
        instructions="Sell.",
        greeting="Hello!",
        voice="Marin",
        personality="calm",
        accent="Irish",
        speed="1.25",
        language="en-IE",
        model="gpt-realtime-2",
        max_output_tokens=500,
        turn_detection={"type": "semantic_vad"},
        tools=[tool, {"builtin": "end_call"}],
        knowledge=[{"vector_store_id": "vs_1", "name": "Prices"}],
        client_may=["voice", "instructions"],
        api_key_secret_id="5d5c",
    )
    assert agent.repaired == ()
    assert (agent.name, agent.greeting, agent.model, agent.max_output_tokens) == (
        "Ada",
        "Hello!",
        "gpt-realtime-2",
        500,
    )
    assert (agent.style.voice, agent.style.speed, agent.style.language) == ("marin", 1.25, "en-IE")
    stock, end_call = agent.tools
    assert (stock.method, stock.timeout_s, stock.headers, stock.filler) == ("GET", 3.0, {"X-Key": "5"}, "One moment.")
    assert (end_call.name, end_call.builtin) == ("end_call", "end_call")
    assert agent.knowledge == (KnowledgeSource("vs_1", "Prices"),)
    assert agent.client_may == {"voice"}
    assert agent.api_key_secret_id == "5d5c"


def test_json_columns_may_be_text() -> None:
    """Drivers give jsonb decoded or as text; both are read alike."""
    columns = {"tools": [{"builtin": "end_call"}], "call_settings": {"silence_timeout_s": 5}, "client_may": ["speed"]}
    assert read(**{name: json.dumps(value) for name, value in columns.items()}) == read(**columns)


@pytest.mark.parametrize(
    ("column", "nonsense"),
    [
        ("voice", "morgan"),
        ("voice", 5),
        ("speed", "fast"),
        ("speed", 2.0),
        ("speed", float("nan")),
        ("speed", 10**400),
        ("speed", []),
        ("language", "English please"),
        ("max_output_tokens", 0),
        ("max_output_tokens", 4097),
        ("max_output_tokens", float("inf")),
        ("max_output_tokens", "many"),
        ("turn_detection", {"type": "magic"}),
        ("turn_detection", {"type": ["server_vad"]}),
        ("turn_detection", []),
        ("turn_detection", "{"),
        ("turn_detection", '{"type":"server_vad","threshold":NaN}'),
        ("tools", {"name": "x"}),
        ("tools", "[" * 100_000),
        ("tools", [5]),
        ("tools", [{}]),
        ("tools", [{"builtin": "fly"}]),
        ("tools", [{"name": "x"}]),
        ("tools", [{"name": "bad name", "url": "https://x.example"}]),
        ("tools", [{"name": "x", "url": "file:///etc/passwd"}]),
        ("tools", [{"name": 5, "url": "https://x.example"}]),
        ("tools", [{"name": "x", "url": "https://x.example", "timeout_s": "long"}]),
        ("tools", [{"name": "x", "url": "https://x.example", "parameters": "y"}]),
        ("tools", [{"builtin": "end_call"}, {"builtin": "end_call"}]),
        ("knowledge", [{"name": "no id"}]),
        ("knowledge", "x"),
        ("client_may", 5),
        ("call_settings", []),
        ("call_settings", "x"),
    ],
)
def test_nonsense_in_one_column_does_not_silence_the_agent(column: str, nonsense: Any) -> None:
    """The field falls back to its default and its name is kept for the owner; everything else stays."""
    agent = read(instructions="Sell.", **{column: nonsense})
    assert agent.repaired == (column,)
    assert agent.instructions == "Sell."


def test_one_bad_tool_takes_no_other_with_it() -> None:
    """Tools that can be used stay, the first of a name wins, and the owner is told that something was left out."""
    stock = {"name": "stock", "url": "https://x.example"}
    same_name = {**stock, "url": "https://y.example"}
    agent = read(tools=[{"builtin": "fly"}, stock, None, same_name, {"builtin": "end_call"}])
    assert [(tool.name, tool.url) for tool in agent.tools] == [("stock", "https://x.example"), ("end_call", None)]
    assert agent.repaired == ("tools",)


@pytest.mark.parametrize(
    ("name", "nonsense"),
    [
        ("max_duration_s", 0),
        ("max_duration_s", 86_400_000),
        ("silence_timeout_s", "soon"),
        ("check_presence", "maybe"),
        ("allow_interruptions", 5),
        ("presence_delay_s", -1),
        ("end_call_phrases", "bye"),
        ("transfer_numbers", {"a": 1}),
        ("noise_reduction", "best"),
        ("noise_reduction", ["near_field"]),
    ],
)
def test_nonsense_in_the_call_settings_is_repaired_one_by_one(name: str, nonsense: Any) -> None:
    """A setting that cannot be is the default; its neighbours stay."""
    agent = read(call_settings={name: nonsense, "hangup_message": "Bye!"})
    assert agent.repaired == (f"call_settings.{name}",)
    assert getattr(agent.call_settings, name) == getattr(CallSettings(), name)
    assert agent.call_settings.hangup_message == "Bye!"


def test_complete_call_settings() -> None:
    """Every setting of the contract is read; truth values may be text."""
    settings = {
        "max_duration_s": 600,
        "silence_timeout_s": "8",
        "check_presence": "false",
        "presence_message": "Hello?",
        "presence_delay_s": 2,
        "hangup_message": "Bye",
        "error_message": "Sorry",
        "end_call_phrases": ["goodbye"],
        "allow_interruptions": False,
        "transfer_numbers": ["+4912345"],
        "voicemail": "Leave a message",
        "noise_reduction": "far_field",
    }
    read_settings = read(call_settings=settings).call_settings
    assert read_settings == CallSettings(
        600.0, 8.0, False, "Hello?", 2.0, "Bye", "Sorry", ("goodbye",), False, ("+4912345",), "Leave a message",
        "far_field",
    )  # fmt: skip


def test_null_in_a_tool_is_as_good_as_nothing() -> None:
    """A null is never spoken, sent or called as the word None."""
    nothing = dict.fromkeys(["description", "method", "headers", "timeout_s", "filler", "parameters"])
    agent = read(
        tools=[{"name": "x", "url": "https://x.example", **nothing}, {"builtin": "end_call", "description": None}],
        knowledge=[{"vector_store_id": "vs", "name": None, "description": None}],
    )
    tool = agent.tools[0]
    assert (tool.description, tool.method, tool.headers, tool.timeout_s, tool.filler) == ("", "POST", {}, 10.0, "")
    assert tool.parameters == {"type": "object", "properties": {}}
    assert agent.tools[1].description == ""
    assert agent.knowledge == (KnowledgeSource("vs", "", ""),)


@pytest.mark.parametrize(("asked", "kept"), [(0.01, 0.5), (5, 5.0), (9999, 60.0)])
def test_a_tools_time_is_bounded(asked: float, kept: float) -> None:
    """Nobody waits for a tool for minutes, and none is given no time at all."""
    assert read(tools=[{"name": "x", "url": "https://x.example", "timeout_s": asked}]).tools[0].timeout_s == kept


@pytest.mark.parametrize(
    ("stored", "may"),
    [
        (["speed"], {"speed"}),
        ([], set()),
        ({"speed": False}, set(CLIENT_MAY) - {"speed"}),
        ({"voice": True}, {*CLIENT_MAY, "voice"}),
        (dict.fromkeys(CLIENT_MAY_NEVER, True), set(CLIENT_MAY)),
        ([*CLIENT_MAY_NEVER], set()),
    ],
)
def test_what_clients_may_change(stored: Any, may: set[str]) -> None:
    """A list opens exactly its names, an object changes the usual ones; who the agent is stays closed."""
    assert read(client_may=stored).client_may == may


@pytest.mark.parametrize("name", VOICES)
def test_every_offered_voice_is_valid(name: str) -> None:
    """In any case, with spaces around it."""
    assert valid_voice(f" {name.upper()} ") == name


@pytest.mark.parametrize(("name", "voice"), sorted(RETIRED_VOICES.items()))
def test_a_retired_voice_has_a_successor(name: str, voice: str) -> None:
    """The API refuses the old names, and takes the new ones."""
    assert valid_voice(name) == voice
    assert voice in VOICES
    assert read(voice=name).style.voice == voice


def test_custom_voices_keep_their_case() -> None:
    """An id is taken as it is; what only looks like one is none."""
    assert valid_voice("voice_AbC-1") == "voice_AbC-1"
    assert valid_voice("voice_") is None
    assert valid_voice("voice_" + "x" * 65) is None
    assert valid_voice("morgan") is None


def test_a_tools_secrets_are_in_no_repr() -> None:
    """Headers hold keys."""
    agent = read(tools=[{"name": "x", "url": "https://x.example", "headers": {"Authorization": "s3cret"}}])
    assert "s3cret" not in repr(agent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "name", "url", "builtin", "voice", "timeout_s", "headers"]), inner)
    ),
    max_leaves=8,
)
COLUMNS = ["name", "instructions", "voice", "speed", "language", "model", "max_output_tokens", "turn_detection"]
COLUMNS += ["tools", "knowledge", "client_may", "call_settings", "api_key_secret_id", "greeting"]


@given(st.dictionaries(st.sampled_from(COLUMNS), JSON))
def test_every_row_is_an_agent(columns: dict[str, Any]) -> None:
    """Whatever stands in a row, there is an agent with a voice the API has."""
    agent = read(**columns)
    assert valid_voice(agent.style.voice) == agent.style.voice
    assert 0.25 <= agent.style.speed <= 1.5
    assert not agent.client_may & CLIENT_MAY_NEVER
