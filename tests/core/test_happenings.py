"""What happened lately, by type and time."""

from __future__ import annotations

from core.happenings import KEPT, MAX_NAME_CHARS, Happenings


def test_events_are_kept_in_order_and_like_ones_are_counted() -> None:
    """Deltas that follow one another are one line with a count and the time of the last."""
    seen = Happenings()
    seen.note("client", "response.create", 1.0)
    for at in (2.0, 2.1, 2.2):
        seen.note("model", "response.output_audio_transcript.delta", at)
    seen.note("client", "response.output_audio_transcript.delta", 3.0)
    assert [(h.at, h.side, h.name, h.times) for h in seen] == [
        (1.0, "client", "response.create", 1),
        (2.2, "model", "response.output_audio_transcript.delta", 3),
        (3.0, "client", "response.output_audio_transcript.delta", 1),
    ]


def test_oldest_is_forgotten_and_names_are_cut() -> None:
    """Neither a long talk nor a long name costs more than the bound."""
    seen = Happenings()
    for number in range(KEPT + 5):
        seen.note("model", f"{number} " + "x" * 200, float(number))
    kept = list(seen)
    assert len(kept) == KEPT and kept[0].at == 5.0
    assert all(len(happening.name) == MAX_NAME_CHARS for happening in kept)
