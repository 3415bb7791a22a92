"""What the simulated model says and does: a table of rules over the last thing it was told.

Typed text is matched as it is. Speech is matched by its scripted transcript; without one, by markers in square brackets
in the session's instructions (`[test tool]`), which then hold for every spoken turn. `response.create` with
instructions says the first sentence in double quotes there, word for word, else a sentence built from them; bracketed
markers work there too.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.arguments import arguments_for
from simulator.clips.speak import number_words
from simulator.items import Item

GREETING = "Hello. I am the simulated agent. How can I help you today?"
PRESENCE = "Are you still there?"
MAX_QUOTED = 300

_QUOTED = re.compile(r'"([^"]+)"|\u201c([^\u201d]+)\u201d')
_MARKER = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Say:
    """Speak (or write) a text; `echo` is an item whose audio follows it."""

    text: str
    echo: Item | None = None
    phase: str | None = None


@dataclass(frozen=True)
class Call:
    """Call a function with these arguments, as sent: a JSON string, or one that is broken."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One response: its outputs in order, then how it ends.

    Attributes:
        error: `type`, `code`, `message` of a response that fails after its outputs.
        slow: Wait long before the first output.
        drop: Abort the connection instead of the first output.
    """

    steps: Sequence[Say | Call] = ()
    error: Mapping[str, str | None] | None = None
    slow: bool = False
    drop: bool = False


@dataclass(frozen=True)
class Situation:
    """All the model knows when it answers."""

    history: Sequence[Item]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = "auto"
    session_instructions: str = ""
    response_instructions: str = ""
    said: str = field(default="")

    def functions(self) -> list[Mapping[str, Any]]:
        """Return the function tools it may call."""
        return [] if self.tool_choice == "none" else [tool for tool in self.tools if tool["type"] == "function"]

    def function(self, name: str) -> Mapping[str, Any] | None:
        """Return the function tool of that name, if it may be called."""
        return next((tool for tool in self.functions() if tool["name"] == name), None)


def server_error() -> Mapping[str, str | None]:
    """Return the error of a response that failed through the vendor's fault."""
    message = "The server had an error while processing your request. Sorry about that!"
    return {"type": "server_error", "code": None, "message": message}


def seconds_in_words(ms: int) -> str:
    """Return tenths of seconds as said: 2,430 ms is `two point four`."""
    return " ".join(number_words(f"{ms / 1000:.1f}"))


def _call(tool: Mapping[str, Any], said: str) -> Call:
    return Call(tool["name"], json.dumps(arguments_for(tool.get("parameters"), said)))


def _test_error(_: Situation) -> Reply:
    return Reply(error=server_error())


def _test_tool(now: Situation) -> Reply:
    tools = now.functions()
    return Reply([_call(tools[0], now.said)]) if tools else Reply([Say("This session has no tools.")])


def _test_two_tools(now: Situation) -> Reply:
    tools = now.functions()
    if not tools:
        return Reply([Say("This session has no tools.")])
    return Reply([_call(tools[0], now.said), _call(tools[1 % len(tools)], now.said)])


def _test_bad_tool(now: Situation) -> Reply:
    tools = now.functions()
    if not tools:
        return Reply([Say("This session has no tools.")])
    return Reply([Call(tools[0]["name"], '{"query": "unfinished')])


def _test_preamble(now: Situation) -> Reply:
    """A spoken preamble, then the call (or the answer), as reasoning models do."""
    preamble = Say("One moment, please.", phase="commentary")
    tools = now.functions()
    return Reply([preamble, _call(tools[0], now.said) if tools else Say("Here is the answer.", phase="final_answer")])


def _test_long_answer(_: Situation) -> Reply:
    count = ", ".join(" ".join(number_words(str(number))) for number in range(1, 31))
    return Reply([Say(f"I will count to thirty. {count}.")])


def _test_silence(_: Situation) -> Reply:
    return Reply()


def _test_drop(_: Situation) -> Reply:
    return Reply(drop=True)


def _test_slow(_: Situation) -> Reply:
    return Reply([Say("Here is the answer.")], slow=True)


def _hang_up(now: Situation) -> Reply:
    tool = now.function("end_call")
    return Reply([Say("Goodbye."), *([_call(tool, now.said)] if tool else [])])


def _what_time(now: Situation) -> Reply:
    tool = now.function("current_time")
    return Reply([_call(tool, now.said)]) if tool else _quote(now)


def _what_did_i_say(now: Situation) -> Reply:
    earlier = [item.text() for item in now.history[:-1] if item.is_message("user")]
    return Reply([Say(f"You said: {earlier[-1]}" if earlier else "You have not said anything yet.")])


def _quote(now: Situation) -> Reply:
    return Reply([Say(f"You typed: {now.said[:MAX_QUOTED]}")])


# The first row whose words occur in what was said decides.
RULES: Sequence[tuple[tuple[str, ...], Callable[[Situation], Reply]]] = (
    (("test error",), _test_error),
    (("test two tools",), _test_two_tools),
    (("test bad tool",), _test_bad_tool),
    (("test tool",), _test_tool),
    (("test preamble",), _test_preamble),
    (("test long answer",), _test_long_answer),
    (("test silence",), _test_silence),
    (("test drop",), _test_drop),
    (("test slow",), _test_slow),
    (("hang up", "goodbye", "good bye"), _hang_up),
    (("what time",), _what_time),
    (("what did i say",), _what_did_i_say),
)


def reply_to(now: Situation) -> Reply:
    """Return what the model answers. Pure: the same situation gives the same answer."""
    last = now.history[-1] if now.history else None
    if now.response_instructions:
        return _by_instructions(now, now.response_instructions)
    if last and last.data["type"] == "function_call_output":
        return Reply([Say(_spoken_outputs(now.history))])
    forced = _forced_call(now, last)
    if forced:
        return Reply([forced])
    if last is None or not last.is_message("user"):
        return _without_user(now, last)
    if last.has_user_audio():
        return _to_speech(now, last)
    said = last.text()
    return _by_rules(_told(now, said), said) or _quote(_told(now, said))


def _told(now: Situation, said: str) -> Situation:
    return Situation(
        now.history, now.tools, now.tool_choice, now.session_instructions, now.response_instructions, said=said
    )


def _by_rules(now: Situation, text: str) -> Reply | None:
    lowered = " ".join(text.lower().split())
    return next((rule(now) for words, rule in RULES if any(word in lowered for word in words)), None)


def _by_markers(now: Situation, instructions: str) -> Reply | None:
    return _by_rules(now, " ".join(_MARKER.findall(instructions)))


def _by_instructions(now: Situation, instructions: str) -> Reply:
    marked = _by_markers(now, instructions)
    if marked:
        return marked
    quoted = _QUOTED.search(instructions)
    if quoted:
        return Reply([Say(quoted[1] or quoted[2])])
    return Reply([Say(f"My instructions are: {instructions[:MAX_QUOTED]}")])


def _without_user(now: Situation, last: Item | None) -> Reply:
    if last and last.is_message("system"):
        return _by_instructions(now, last.text())
    spoken_before = any(item.is_message("assistant") for item in now.history)
    return Reply([Say("How can I help you today?" if spoken_before else GREETING)])


def _to_speech(now: Situation, item: Item) -> Reply:
    if item.understood:
        ruled = _by_rules(_told(now, item.understood), item.understood)
    else:
        ruled = _by_markers(_told(now, item.text()), now.session_instructions)
    if ruled:
        return ruled
    if not item.speech_ms:
        return Reply([Say(PRESENCE)])
    heard = f"I heard {seconds_in_words(item.speech_ms)} seconds of speech. Here is what you said."
    if item.understood:
        heard = f"You said: {item.understood[:MAX_QUOTED]} {heard}"
    return Reply([Say(heard, echo=item)])


def _forced_call(now: Situation, last: Item | None) -> Call | None:
    """Return the call that `tool_choice` demands, or None."""
    said = last.text() if last else ""
    if isinstance(now.tool_choice, dict) and now.tool_choice["type"] == "function":
        tool = now.function(now.tool_choice["name"])
        return _call(tool, said) if tool else None
    if now.tool_choice == "required" and now.functions():
        return _call(now.functions()[0], said)
    return None


def _spoken_outputs(history: Sequence[Item]) -> str:
    """Return a sentence with every tool output that came since somebody last spoke."""
    names = {item.data["call_id"]: item.data["name"] for item in history if item.data["type"] == "function_call"}
    outputs: list[str] = []
    for item in reversed(history):
        if item.data["type"] not in ("function_call", "function_call_output"):
            break
        if item.data["type"] == "function_call_output":
            if names.get(item.data["call_id"]) == "end_call":
                return "Goodbye."
            outputs.insert(0, item.data["output"][:MAX_QUOTED])
    return " ".join(f"The tool answered: {output.rstrip('.')}." for output in outputs)
