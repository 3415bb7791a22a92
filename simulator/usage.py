"""Tokens of a response and the rate limit that follows it, from the published rates."""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.items import Item

# User audio costs one token per 100 ms, assistant audio one per 50 ms (OpenAI, "Managing costs").
USER_MS_PER_TOKEN, ASSISTANT_MS_PER_TOKEN = 100, 50
# Rule of thumb of the vendor's tokenizer page for English text.
CHARACTERS_PER_TOKEN = 4
# The prompt cache works in steps; the vendor's guide names 64 tokens for realtime.
CACHE_STEP = 64

TOKENS_PER_MINUTE = 800_000


def text_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def audio_tokens(ms: int) -> int:
    """Return the tokens of so much assistant audio."""
    return math.ceil(ms / ASSISTANT_MS_PER_TOKEN)


class Meter:
    """Counts the tokens of a session: what was read before and is unchanged counts as cached."""

    def __init__(self) -> None:
        self._read = (0, 0)
        self._spent = 0

    def usage(
        self, prompt: Sequence[Any], history: Iterable[Item], *, output_text: int, output_audio: int
    ) -> Mapping[str, Any]:
        """Return the `usage` of a response that read the prompt (instructions, tools) and the history."""
        text, audio = _input_tokens(prompt, history)
        cached_text, cached_audio = (min(new, old) // CACHE_STEP * CACHE_STEP for new, old in
                                     zip((text, audio), self._read, strict=True))
        self._read = (text, audio)
        total = text + audio + output_text + output_audio
        self._spent += total
        return {
            "total_tokens": total,
            "input_tokens": text + audio,
            "output_tokens": output_text + output_audio,
            "input_token_details": {
                "text_tokens": text,
                "audio_tokens": audio,
                "image_tokens": 0,
                "cached_tokens": cached_text + cached_audio,
                "cached_tokens_details": {
                    "text_tokens": cached_text, "audio_tokens": cached_audio, "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": output_text, "audio_tokens": output_audio},
        }

    def rate_limits(self) -> list[Mapping[str, Any]]:
        """Return the entries of `rate_limits.updated`: only `tokens` was seen on the live service."""
        used = min(self._spent, TOKENS_PER_MINUTE)
        return [
            {
                "name": "tokens",
                "limit": TOKENS_PER_MINUTE,
                "remaining": TOKENS_PER_MINUTE - used,
                "reset_seconds": round(60 * used / TOKENS_PER_MINUTE, 3),
            }
        ]


def _input_tokens(prompt: Sequence[Any], history: Iterable[Item]) -> tuple[int, int]:
    text = sum(text_tokens(part if isinstance(part, str) else json.dumps(part)) for part in prompt if part)
    audio = 0
    for item in history:
        if item.audio:
            rate = USER_MS_PER_TOKEN if item.is_message("user") else ASSISTANT_MS_PER_TOKEN
            audio += math.ceil(item.audio_ms / rate)
        else:
            text += text_tokens(item.text() or json.dumps(item.data))
    return text, audio
