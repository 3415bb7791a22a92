"""Tools as the model sees them, and the calls it makes.

Most tools run outside, see `services/toolbox.py`; `end_call` is decided here, because ending is the conversation's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.agent import Agent, Tool
from core.realtime import Event

MAX_OUTPUT_CHARS = 32_000
"""Longest tool output given to the model, about 8,000 tokens: a quarter of the smallest model's context."""

TOO_LONG = ' …"(cut: the tool answered more than can be read)"'


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_BUILTINS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "current_time": (
        "Tell the current date, time and weekday.",
        _object(timezone={"type": "string", "description": "IANA time zone such as Europe/Berlin; UTC when left out."}),
    ),
    "end_call": (
        "End the conversation. Say goodbye first, then use this when the person is finished or asks to hang up.",
        _object(),
    ),
    "search_knowledge": (
        "Look something up in the knowledge base before you answer a question about it.",
        {
            **_object(query={"type": "string", "description": "What to look for, in a few words."}),
            "required": ["query"],
        },
    ),
    "transfer_call": (
        "Connect the caller with a person. Say that you are connecting them, then use this.",
        _object(number={"type": "string", "description": "One of the numbers you may transfer to."}),
    ),
    "send_dtmf_wait": (
        "Wait for digits that the caller types on the telephone's keys.",
        _object(digits={"type": "integer", "description": "How many digits to wait for.", "minimum": 1, "maximum": 32}),
    ),
}

PHONE_ONLY = frozenset({"transfer_call", "send_dtmf_wait"})
"""Built-in tools that mean nothing without a telephone line."""


def definitions(agent: Agent, *, channel: str) -> list[Event]:
    """Return the function definitions of a session (OpenAI Realtime reference, section 11).

    An agent with knowledge can always search it; tools of the telephone are left out on other channels.
    """
    tools = [tool for tool in agent.tools if channel == "phone" or tool.builtin not in PHONE_ONLY]
    if agent.knowledge and not any(tool.name == "search_knowledge" for tool in tools):
        tools.append(Tool("search_knowledge", "", {}, builtin="search_knowledge"))
    return [_definition(tool, agent) for tool in tools]


def _definition(tool: Tool, agent: Agent) -> Event:
    if tool.builtin is None:
        return _function(tool.name, tool.description, tool.parameters)
    description, parameters = _BUILTINS[tool.builtin]
    if tool.builtin == "search_knowledge":
        known = "; ".join(f"{k.name}: {k.description}".strip(": ") for k in agent.knowledge if k.name or k.description)
        description += f" It holds: {known}." if known else ""
    if tool.builtin == "transfer_call" and agent.call_settings.transfer_numbers:
        number = {**parameters["properties"]["number"], "enum": list(agent.call_settings.transfer_numbers)}
        parameters = {**parameters, "properties": {"number": number}}
    return _function(tool.builtin, tool.description or description, parameters)


def _function(name: str, description: str, parameters: Mapping[str, Any]) -> Event:
    return {"type": "function", "name": name, "description": description, "parameters": dict(parameters)}


@dataclass(slots=True)
class Call:
    """One call the model made."""

    call_id: str
    name: str
    arguments: str = field(repr=False)
    response_id: str = ""


class ToolCalls:
    """The calls whose results are awaited; every `call_id` is run once and answered once."""

    __slots__ = ("_calls", "_seen")

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._seen: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls

    def begin(self, item: Mapping[str, Any], response_id: str) -> Call | None:
        """Return the call a finished `function_call` item makes, or None when it was seen before or lacks its id."""
        call_id, name = item.get("call_id"), item.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str) or call_id in self._seen:
            return None
        self._seen.add(call_id)
        call = self._calls[call_id] = Call(call_id, name, str(item.get("arguments") or "{}"), response_id)
        return call

    def finish(self, call_id: str) -> Call | None:
        """Return the awaited call and await it no longer; None when its result is not wanted any more."""
        return self._calls.pop(call_id, None)

    def forget(self, response_id: str) -> None:
        """Want no result of a response that was cancelled (OpenAI Realtime reference, section 8.3)."""
        self._calls = {call_id: call for call_id, call in self._calls.items() if call.response_id != response_id}

    def forget_all(self) -> None:
        """Want no result any more; used when the upstream that asked for them is gone."""
        self._calls.clear()


def output_item(call_id: str, output: str) -> Event:
    """Return the item that gives a call's output to the model."""
    text = output if len(output) <= MAX_OUTPUT_CHARS else output[:MAX_OUTPUT_CHARS] + TOO_LONG
    return {"type": "function_call_output", "call_id": call_id, "output": text}
