"""What a call may change of its agent, for itself alone: columns of the agent's row, laid over it.

Like an agent's own row, an override that is nonsense must not silence the agent: it changes nothing and is named in
`Agent.repaired`, so that the log can tell the owner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from core.agent import Agent, CallSettings, VoiceStyle, agent_from_row

_TEXTS = ("name", "instructions", "greeting", "personality", "accent", "language", "model")
_MAY_BE_EMPTY = frozenset(_TEXTS) - {"name"}
"""Columns where an empty text is a choice, such as no greeting; elsewhere it means "as the agent has it"."""

_STYLE = frozenset(each.name for each in fields(VoiceStyle))

OVERRIDES: Mapping[str, str] = {
    **dict.fromkeys(_TEXTS, "a text"),
    "voice": "the name of a built-in voice or the id of a custom one",
    "speed": "a number from 0.25 to 1.5",
    "language": "a language code such as en or pt-BR",
    "max_output_tokens": "a whole number from 1 to 4096",
    "temperature": "a number",
    "turn_detection": "an object whose type is server_vad, semantic_vad or none",
    "tools": "a list of tools, each with builtin or with name and url, no two of one name",
    "knowledge": "a list of objects with vector_store_id",
    "call_settings": "an object",
    "client_may": "a list of names, or an object of name to true or false",
}
"""Columns of an agent that a call may override, and what each must be.

The agent's id and owner are not among them, nor is the Vault id of its key: a configuration that a tenant wrote must
not spend another tenant's money.
"""

_SETTINGS: Mapping[str, str] = {
    **{each.name: "a text" for each in fields(CallSettings)},
    **dict.fromkeys(("max_duration_s", "silence_timeout_s", "presence_delay_s"), "seconds above 0 and below 86400"),
    **dict.fromkeys(("check_presence", "allow_interruptions"), "true or false"),
    **dict.fromkeys(("end_call_phrases", "transfer_numbers"), "a list of texts"),
    "noise_reduction": "near_field or far_field",
}


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """Return a problem for each override that would be left out."""
    problems = [f"config.{shown(name)} is not a column a call may override" for name in config if name not in OVERRIDES]
    problems += [
        f"config.{name} must be {OVERRIDES[name]}"
        for name in _TEXTS
        if not isinstance(config.get(name, ""), str | None)
    ]
    for name in _read(config).repaired:
        column, _, setting = name.partition(".")
        problems.append(f"config.{name} must be {_SETTINGS[setting] if setting else OVERRIDES[column]}")
    problems += [f"config.call_settings.{shown(name)} is not a call setting" for name in _unknown_settings(config)]
    return list(dict.fromkeys(problems))


def configured_agent(agent: Agent, config: Mapping[str, Any]) -> Agent:
    """Return the agent with a call's overrides laid over it.

    An override that is nonsense, or that no call may make, changes nothing and is named in `Agent.repaired` as
    `config.…`. `call_settings` is overridden setting by setting, every other column as a whole. Null overrides nothing.

    Args:
        agent: As its owner configured it.
        config: Columns of the table `agents` by name.
    """
    if not isinstance(config, Mapping):
        return replace(agent, repaired=(*agent.repaired, "config"))
    read = _read(config)
    given = {name for name in OVERRIDES if _is_given(config, name) and name not in read.repaired}
    changes: dict[str, Any] = {name: getattr(read, name) for name in given - _STYLE - {"call_settings", "temperature"}}
    refused = [name for name in config if name not in OVERRIDES]
    refused += [*read.repaired, *(f"call_settings.{name}" for name in _unknown_settings(config))]
    return replace(
        agent,
        **changes,
        style=replace(agent.style, **{name: getattr(read.style, name) for name in given & _STYLE}),
        call_settings=_settings(agent, read, config),
        repaired=(*agent.repaired, *(f"config.{shown(name)}" for name in refused)),
    )


def _read(config: Mapping[str, Any]) -> Agent:
    """Return an agent that has nothing but the overrides; its `repaired` names those that are nonsense."""
    columns = {name: config[name] for name in OVERRIDES if name in config}
    return agent_from_row({**columns, "id": "", "user_id": ""})


def _is_given(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name)
    return value is not None and (value != "" or name in _MAY_BE_EMPTY)


def _settings(agent: Agent, read: Agent, config: Mapping[str, Any]) -> CallSettings:
    given = _given_settings(config)
    changes = {
        each.name: getattr(read.call_settings, each.name)
        for each in fields(CallSettings)
        if given.get(each.name) not in (None, "") and f"call_settings.{each.name}" not in read.repaired
    }
    return replace(agent.call_settings, **changes)


def _unknown_settings(config: Mapping[str, Any]) -> list[str]:
    return [name for name in _given_settings(config) if name not in _SETTINGS]


def _given_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the call settings of the overrides; columns of JSON may come as text, as `agent_from_row` says."""
    value = config.get("call_settings")
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}


def shown(name: Any) -> str:
    """Return a field's name as an error may repeat it: short, and without what could be content."""
    return re.sub(r"[^A-Za-z0-9_.]", "?", str(name))[:40]
