"""Say any English text from recorded clips: the longest known phrase first, then words, then letter by letter."""
from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from simulator.audio import PCMU, silence, to_pcm24

FOLDER = Path(__file__).resolve().parent
BLOB = FOLDER / "clips.ulaw"
INDEX = FOLDER / "clips.json"

LONGEST_PHRASE_WORDS = 6
WORD_GAP_MS, COMMA_MS, STOP_MS = 60, 150, 300
# Spelling is slow (0.3 s a letter): after this many letters the rest of a text is left to the transcript.
MAX_SPELLED = 80

_TOKEN = re.compile(r"[a-z']+|\d+(?:\.\d+)?|[.,;:!?]")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ROUND = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _SMALL.split(), _ROUND.split()


def number_words(number: str) -> list[str]:
    """Return how a number in digits is said: `2.4` is two point four; beyond 999,999 digit by digit."""
    whole, _, decimals = number.partition(".")
    words = [_ONES[int(digit)] for digit in whole] if len(whole) > 6 or whole != str(int(whole)) else _whole(int(whole))
    return words + (["point"] + [_ONES[int(digit)] for digit in decimals] if decimals else [])


def _whole(number: int) -> list[str]:
    if number < 20:
        return [_ONES[number]]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = _whole(number % size) if number % size else []
            return [*_whole(number // size), name, *rest]
    return [_TENS[number // 10], *([_ONES[number % 10]] if number % 10 else [])]


@cache
def _clips() -> dict[str, bytes]:
    blob = BLOB.read_bytes()
    index = json.loads(INDEX.read_text(encoding="utf-8"))
    return {key: blob[start : start + length] for key, (start, length) in index.items()}


def clip_speech(text: str) -> bytes:
    """Return 24 kHz PCM of the text said with clips; empty for text without a letter or digit."""
    tokens: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        tokens += number_words(token) if token[0].isdigit() else [token]
    parts: list[bytes] = []
    spelled = 0
    while tokens:
        known = _longest_known(tokens)
        if known:
            parts += [to_pcm24(_clips()[" ".join(tokens[:known])], PCMU), silence(WORD_GAP_MS)]
        elif tokens[0][0] in ".,;:!?":
            known = 1
            parts.append(silence(STOP_MS if tokens[0] in ".!?" else COMMA_MS))
        else:
            known = 1
            letters = tokens[0].replace("'", "") if spelled < MAX_SPELLED else ""
            spelled += len(letters)
            parts += [to_pcm24(_clips()[f"letter {letter}"], PCMU) for letter in letters]
            parts.append(silence(WORD_GAP_MS))
        del tokens[:known]
    return b"".join(parts)


def _longest_known(tokens: list[str]) -> int:
    """Return how many leading tokens one clip says, 0 for none."""
    for count in range(min(LONGEST_PHRASE_WORDS, len(tokens)), 0, -1):
        if " ".join(tokens[:count]) in _clips():
            return count
    return 0
