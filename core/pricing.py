"""Usage to cost.

Prices are the published ones of August to November 2026 in USD per million tokens. Source: OpenAI Realtime reference,
section 10. Models that are not in the table are priced as their family, the longest name that begins theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens of one model."""

    audio_in: float
    audio_in_cached: float
    audio_out: float
    text_in: float
    text_in_cached: float
    text_out: float
    image_in: float
    image_in_cached: float


_FULL = Price(32, 0.40, 64, 4, 0.40, 24, 5, 0.50)
_MINI = Price(10, 0.30, 20, 0.60, 0.06, 2.40, 0.80, 0.08)
_1_5 = Price(32, 0.40, 64, 4, 0.40, 16, 5, 0.50)

PRICES: Mapping[str, Price] = {
    "gpt-realtime": _1_5,
    "gpt-realtime-2025": _1_5,
    "gpt-realtime-1.5": _1_5,
    "gpt-realtime-2": _FULL,
    "gpt-realtime-2.1": _FULL,
    "gpt-realtime-mini": _MINI,
    "gpt-realtime-2.1-mini": _MINI,
}

TRANSCRIPTION_USD_PER_MINUTE: Mapping[str, float] = {
    "gpt-transcribe": 0.0045,
    "gpt-live-transcribe": 0.017,
    "gpt-realtime-whisper": 0.017,
    "whisper-1": 0.006,
}
TRANSCRIPTION_TOKENS: Mapping[str, tuple[float, float]] = {
    "gpt-4o-transcribe": (2.50, 10.0),
    "gpt-4o-mini-transcribe": (1.25, 5.0),
}
"""USD per million input and output tokens of models that bill transcription by tokens."""


def price_of(model: str) -> Price:
    """Return the price of a model; an unknown one costs as much as the dearest: budgets err on the safe side."""
    family = max((name for name in PRICES if model.startswith(name)), key=len, default="gpt-realtime-2.1")
    return PRICES[family]


@dataclass(slots=True)
class Usage:
    """Totals of one conversation, as stored in `conversations.usage`."""

    cost_usd: float = 0.0
    responses: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    transcription_s: float = 0.0

    def add_response(self, model: str, usage: Any) -> None:
        """Add one `response.done`; its usage may be null or lack fields, then what is there counts."""
        self.responses += 1
        given, spoken = _object(usage, "input_token_details"), _object(usage, "output_token_details")
        cached = _object(given, "cached_tokens_details")
        counts = {
            "input_audio": _count(given, "audio_tokens"),
            "input_text": _count(given, "text_tokens"),
            "input_image": _count(given, "image_tokens"),
            "cached_audio": _count(cached, "audio_tokens"),
            "cached_text": _count(cached, "text_tokens"),
            "cached_image": _count(cached, "image_tokens"),
            "output_audio": _count(spoken, "audio_tokens"),
            "output_text": _count(spoken, "text_tokens"),
        }
        for name, count in counts.items():
            self.tokens[name] = self.tokens.get(name, 0) + count
        self.cost_usd += _response_usd(price_of(model), counts)

    def add_transcription(self, model: str, usage: Any) -> None:
        """Add one finished transcription, billed by duration or by tokens as its usage says."""
        if not isinstance(usage, dict):
            return
        if usage.get("type") == "duration":
            seconds = _number(usage.get("seconds"))
            self.transcription_s += seconds
            per_minute = TRANSCRIPTION_USD_PER_MINUTE.get(model, max(TRANSCRIPTION_USD_PER_MINUTE.values()))
            self.cost_usd += seconds / 60 * per_minute
        else:
            given, written = TRANSCRIPTION_TOKENS.get(model, (2.50, 10.0))
            tokens_in, tokens_out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
            self.cost_usd += (tokens_in * given + tokens_out * written) / 1e6

    def as_json(self) -> dict[str, Any]:
        """Return the totals as they are stored."""
        return {
            "responses": self.responses,
            "tokens": dict(self.tokens),
            "transcription_s": round(self.transcription_s, 3),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], cost_usd: float) -> Usage:
        """Return the totals to go on from when a conversation is resumed."""
        tokens = stored.get("tokens")
        return cls(
            cost_usd=float(cost_usd),
            responses=_count(stored, "responses"),
            tokens={str(k): int(v) for k, v in tokens.items() if isinstance(v, int)}
            if isinstance(tokens, dict)
            else {},
            transcription_s=_number(stored.get("transcription_s")),
        )


def _response_usd(price: Price, counts: Mapping[str, int]) -> float:
    """Cost of one response; cached tokens are a subset of input tokens."""
    fresh = {kind: max(0, counts[f"input_{kind}"] - counts[f"cached_{kind}"]) for kind in ("audio", "text", "image")}
    return (
        fresh["audio"] * price.audio_in
        + counts["cached_audio"] * price.audio_in_cached
        + fresh["text"] * price.text_in
        + counts["cached_text"] * price.text_in_cached
        + fresh["image"] * price.image_in
        + counts["cached_image"] * price.image_in_cached
        + counts["output_audio"] * price.audio_out
        + counts["output_text"] * price.text_out
    ) / 1e6


def _object(value: Any, key: str) -> dict[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0


def _count(value: Mapping[str, Any], key: str) -> int:
    return int(_number(value.get(key)))
