"""What a call changes of its agent for itself: every column, nonsense, and what no call may touch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.agent import Agent, agent_from_row
from core.calls import configured_agent
from core.overrides import OVERRIDES, config_problems

ROW: dict[str, Any] = {
    "id": "agent",
    "user_id": "owner",
    "name": "Ada",
    "instructions": "Be brief.",
    "greeting": "Hello.",
    "voice": "cedar",
    "personality": "calm",
    "accent": "Irish",
    "speed": 1.2,
    "language": "en",
    "model": "m",
    "max_output_tokens": 500,
    "turn_detection": {"type": "semantic_vad"},
    "tools": [{"builtin": "end_call"}],
    "knowledge": [{"vector_store_id": "vs_1"}],
    "client_may": ["speed"],
    "call_settings": {"silence_timeout_s": 7, "transfer_numbers": ["+14155550100"], "hangup_message": "Bye."},
    "api_key_secret_id": "vault-id",
}
AGENT = agent_from_row(ROW)

CHANGES: dict[str, Any] = {
    "name": "Grace",
    "instructions": "Be kind.",
    "greeting": "Hi.",
    "voice": "ash",
    "personality": "warm",
    "accent": "Welsh",
    "speed": 0.5,
    "language": "pt-BR",
    "model": "n",
    "max_output_tokens": 7,
    "turn_detection": {"type": "none"},
    "tools": [{"builtin": "current_time"}],
    "knowledge": [],
    "client_may": [],
    "call_settings": {"silence_timeout_s": 3, "transfer_numbers": [], "voicemail": "leave"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_column_is_overridden_and_no_other(name: str) -> None:
    """One override gives the agent its row would give with that column, and nothing else changes."""
    settings = {"call_settings": ROW["call_settings"] | CHANGES["call_settings"]}
    row = ROW | ({name: CHANGES[name]} if name != "call_settings" else settings)
    assert configured_agent(AGENT, {name: CHANGES[name]}) == agent_from_row(row)
    assert config_problems({name: CHANGES[name]}) == []


def test_every_column_that_may_be_overridden_is_tested() -> None:
    """The list above is complete; temperature is taken and has no effect."""
    assert {*CHANGES, "temperature"} == set(OVERRIDES)
    assert configured_agent(AGENT, {"temperature": 0.8}) == AGENT
    assert config_problems({"temperature": 0.8}) == []


def test_no_overrides_leave_the_agent_as_it_is() -> None:
    """An empty configuration, nulls and empty texts where a value must be, change nothing."""
    assert configured_agent(AGENT, {}) == AGENT
    assert configured_agent(AGENT, dict.fromkeys(OVERRIDES)) == AGENT
    empty = {
        "voice": "",
        "speed": "",
        "name": "",
        "tools": "",
        "call_settings": {"hangup_message": "", "voicemail": None},
    }
    assert configured_agent(AGENT, empty) == AGENT
    assert config_problems(empty) == []


def test_empty_text_is_a_choice() -> None:
    """A call may have no greeting, although its agent has one."""
    changed = configured_agent(AGENT, {"greeting": "", "accent": "", "language": ""})
    assert (changed.greeting, changed.style.accent, changed.style.language) == ("", "", "")
    assert changed.repaired == ()


@pytest.mark.parametrize("name", ["id", "user_id", "api_key_secret_id", "is_active", "repaired"])
def test_who_the_agent_is_and_who_pays_cannot_be_changed(name: str) -> None:
    """The agent's id, owner and key are no call's to change; the attempt is named."""
    changed = configured_agent(AGENT, {name: "mallory"})
    assert (changed.id, changed.user_id, changed.api_key_secret_id) == ("agent", "owner", "vault-id")
    assert changed.repaired == (f"config.{name}",)
    assert config_problems({name: "mallory"}) == [f"config.{name} is not a column a call may override"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("voice", "frank", "the name of a built-in voice or the id of a custom one"),
        ("speed", 9, "a number from 0.25 to 1.5"),
        ("language", "Klingon!", "a language code such as en or pt-BR"),
        ("max_output_tokens", "many", "a whole number from 1 to 4096"),
        ("turn_detection", {"type": "magic"}, "an object whose type is server_vad, semantic_vad or none"),
        ("tools", [{"name": "x"}], "a list of tools, each with builtin or with name and url, no two of one name"),
        ("knowledge", {}, "a list of objects with vector_store_id"),
        ("client_may", 7, "a list of names, or an object of name to true or false"),
        ("call_settings", [], "an object"),
        ("call_settings", "{", "an object"),
    ],
)
def test_nonsense_falls_back_to_the_agent_and_is_named(name: str, value: Any, words: str) -> None:
    """The agent keeps its own value, the log can name the column, and the app is told what the column must be."""
    changed = configured_agent(AGENT, {name: value})
    assert replace(changed, repaired=()) == AGENT
    assert changed.repaired == (f"config.{name}",)
    assert config_problems({name: value}) == [f"config.{name} must be {words}"]


def test_nonsense_in_one_setting_spares_the_others() -> None:
    """Call settings fall back one by one."""
    settings = {"silence_timeout_s": -1, "presence_delay_s": 2, "check_presence": "perhaps", "colour": "red"}
    changed = configured_agent(AGENT, {"call_settings": settings})
    assert (changed.call_settings.silence_timeout_s, changed.call_settings.presence_delay_s) == (7.0, 2.0)
    named = {"config.call_settings.silence_timeout_s", "config.call_settings.check_presence"}
    assert set(changed.repaired) == {*named, "config.call_settings.colour"}
    assert set(config_problems({"call_settings": settings})) == {
        "config.call_settings.silence_timeout_s must be seconds above 0 and below 86400",
        "config.call_settings.check_presence must be true or false",
        "config.call_settings.colour is not a call setting",
    }


def test_settings_may_come_as_text() -> None:
    """A column of JSON as text is read like the object."""
    changed = configured_agent(AGENT, {"call_settings": json.dumps({"silence_timeout_s": 3})})
    assert changed.call_settings.silence_timeout_s == 3.0
    assert changed.call_settings.hangup_message == "Bye."


def test_texts_must_be_texts_when_they_are_announced() -> None:
    """A number as instructions is told to the app; in a row it is read as its digits."""
    assert config_problems({"instructions": 7}) == ["config.instructions must be a text"]
    assert configured_agent(AGENT, {"instructions": 7}).instructions == "7"


def test_configuration_that_is_no_object_changes_nothing() -> None:
    """A row whose configuration is a list answers as its agent is, and says so."""
    rows: Any = [1]
    assert configured_agent(AGENT, rows).repaired == ("config",)
    assert configured_agent(AGENT, rows).instructions == "Be brief."


def test_repairs_of_the_agents_own_row_stay_named() -> None:
    """What was repaired before is not forgotten."""
    agent = agent_from_row(ROW | {"speed": 9})
    assert configured_agent(agent, {"voice": "frank"}).repaired == ("speed", "config.voice")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*OVERRIDES, "id", "user_id"]) | st.text(max_size=9), JSON, max_size=5))
def test_any_configuration_gives_an_agent_of_the_same_owner(config: dict[str, Any]) -> None:
    """No configuration is an accident, and none changes whose agent it is."""
    changed = configured_agent(AGENT, config)
    assert isinstance(changed, Agent)
    assert (changed.id, changed.user_id, changed.api_key_secret_id) == ("agent", "owner", "vault-id")
    config_problems(config)
