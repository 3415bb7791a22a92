"""Make `clips.ulaw` and `clips.json` anew: `python -m simulator.clips.make_clips` (needs flite with the voice slt).

`clips.ulaw` is 8 kHz mono mu-law, one clip after the other without header; `clips.json` maps what is said to
`[first byte, length]`. flite's licence (CMU, BSD-like) allows shipping what it speaks.
"""
from __future__ import annotations

import json
import subprocess
import tempfile
import wave
from array import array
from pathlib import Path

from simulator.audio import G711_RATE_HZ, PCMU, encode_samples, resample, samples_of
from simulator.clips.speak import BLOB, INDEX

FLITE_TIMEOUT_S = 30
SIZE_LIMIT_BYTES = 400 * 1024
# Edges quieter than this are cut: flite pads every clip with about 200 ms of near silence.
EDGE_LEVEL = 200
EDGE_KEPT_MS = 15

PHRASES = (
    "I heard", "seconds of speech", "here is what you said", "you typed", "you said", "hello", "thank you",
    "I am the simulated agent", "how can I help you today", "goodbye", "the tool answered", "one moment please",
    "are you still there", "you have not said anything yet", "this session has no tools", "here is the answer",
    "I will count to thirty", "my instructions are", "something went wrong",
)
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand point minus"
)
WORDS = (
    "the and or to of in on at for from with by is are was it this that not no yes we our your me what when where who "
    "how can will please help open today tomorrow call agent welcome hi name"
)
LETTERS = {
    "a": "ay", "b": "bee", "c": "see", "d": "dee", "e": "E.", "f": "eff", "g": "gee", "h": "aitch", "i": "eye",
    "j": "jay", "k": "kay", "l": "el", "m": "em", "n": "en", "o": "oh", "p": "pee", "q": "cue", "r": "are", "s": "ess",
    "t": "tee", "u": "you", "v": "vee", "w": "double you", "x": "ex", "y": "why", "z": "zee",
}


def spoken_by_flite(text: str, stretch: float) -> array[int]:
    """Return 8 kHz samples of the text, trimmed at both ends; a `stretch` below 1 speaks faster."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        command = ["flite", "-voice", "slt", "--setf", f"duration_stretch={stretch}", "-t", text, "-o", str(path)]
        subprocess.run(command, check=True, timeout=FLITE_TIMEOUT_S)
        with wave.open(str(path)) as reader:
            rate, samples = reader.getframerate(), samples_of(reader.readframes(reader.getnframes()))
    if rate == 2 * G711_RATE_HZ:  # halve through 24 kHz, whose third is low-passed first
        rate, samples = 3 * G711_RATE_HZ, resample(samples, rate, 3 * G711_RATE_HZ)
    return trimmed(resample(samples, rate, G711_RATE_HZ))


def trimmed(samples: array[int]) -> array[int]:
    """Return samples without their quiet edges, but for 15 ms."""
    loud = [i for i, sample in enumerate(samples) if abs(sample) > EDGE_LEVEL]
    kept = EDGE_KEPT_MS * G711_RATE_HZ // 1000
    return samples[max(loud[0] - kept, 0) : loud[-1] + kept]


def main() -> None:
    """Write both files beside this one; fail when they outgrow 400 KiB together."""
    texts = {phrase.lower(): (phrase, 0.88) for phrase in PHRASES}
    texts |= {word: (word, 0.78) for word in f"{NUMBERS} {WORDS}".split()}
    texts |= {f"letter {letter}": (sound, 0.7) for letter, sound in LETTERS.items()}
    blob, index = bytearray(), {}
    for key, (text, stretch) in texts.items():
        clip = encode_samples(spoken_by_flite(text, stretch), PCMU)
        index[key] = [len(blob), len(clip)]
        blob += clip
    lines = json.dumps(index).replace("], ", "],\n ")
    if len(blob) + len(lines) > SIZE_LIMIT_BYTES:
        raise SystemExit(f"clips take {len(blob) + len(lines)} bytes, more than {SIZE_LIMIT_BYTES}")
    BLOB.write_bytes(blob)
    INDEX.write_text(lines + "\n", encoding="utf-8")
    print(f"{len(index)} clips, {len(blob) / G711_RATE_HZ:.1f} s, {len(blob) + len(lines)} bytes")


if __name__ == "__main__":
    main()
