"""Prompt and style become instructions."""

from __future__ import annotations

from core.instructions import DEFAULT_PROMPT, instructions_for, say_exactly
from tests.dialogue import agent


def test_the_prompt_comes_first_and_the_style_after_it() -> None:
    """Personality, accent and language, which have no parameter of their own, are said in words."""
    text = instructions_for(
        agent(instructions=" You sell shoes. ", personality=" calm ", accent="Scottish", language="de-AT")
    )
    assert text.startswith("You sell shoes.\n\n")
    assert "calm." in text
    assert "Scottish accent" in text
    assert "de-AT" in text


def test_an_agent_without_a_prompt_does_not_speak_in_the_vendors_name() -> None:
    """Empty instructions are replaced, and nothing is added that the agent does not have."""
    assert instructions_for(agent()) == DEFAULT_PROMPT


def test_tools_and_knowledge_are_announced_before_they_take_time() -> None:
    """An agent that may look something up says so before a silence."""
    assert "look" in instructions_for(agent(tools=[{"builtin": "current_time"}]))
    assert "look" in instructions_for(agent(knowledge=[{"vector_store_id": "vs_1"}]))


def test_instructions_are_the_same_for_every_session() -> None:
    """The same agent gives the same bytes, so that the API's cache of its prefix holds."""
    assert instructions_for(agent(accent="Irish")) == instructions_for(agent(accent="Irish"))


def test_a_greeting_is_said_word_for_word() -> None:
    """The response that greets is asked for the sentence and nothing else."""
    assert '"Hello!"' in say_exactly(" Hello! ")
