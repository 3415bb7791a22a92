"""Prompt, personality, accent and language to the instructions of a session.

The text is the same for every session of an agent, byte for byte: the API caches its prefix (OpenAI Realtime reference,
section 10), so nothing that differs from call to call belongs here.
"""

from __future__ import annotations

from core.agent import Agent

DEFAULT_PROMPT = "You are a helpful voice assistant. Answer briefly and in a friendly way."
"""Used when an agent has no instructions: the vendor's own default would speak in the vendor's name."""


def instructions_for(agent: Agent) -> str:
    """Return the session's instructions."""
    style = agent.style
    parts = [agent.instructions.strip() or DEFAULT_PROMPT]
    if style.personality:
        parts.append(f"Voice personality: {style.personality.strip()}.")
    if style.accent:
        parts.append(f"Speak with a {style.accent.strip()} accent.")
    if style.language:
        parts.append(f"Speak in the language with the code {style.language} unless asked for another.")
    if agent.tools or agent.knowledge:
        parts.append("Before you use a tool that may take a moment, say in a few words that you are looking it up.")
    return "\n\n".join(parts)


def say_exactly(sentence: str) -> str:
    """Return instructions for one response that speaks a sentence and nothing else."""
    return f'Say exactly this sentence, and nothing else: "{sentence.strip()}"'
