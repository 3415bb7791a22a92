"""The input buffer: positions, prefix padding, what a commit takes, what is forgotten."""
from __future__ import annotations

import pytest

from simulator.audio import PCM, PCMU, from_pcm24, silence
from simulator.input_audio import KEPT_IN_SILENCE_MS, InputAudio, Started, Stopped
from simulator.vad import VadSettings

VAD = VadSettings(rms_threshold=600.0, prefix_padding_ms=100, silence_ms=200)


def noise(ms: int) -> bytes:
    """Return a loud square wave."""
    return (b"\x00\x20" * 24 + b"\x00\xe0" * 24) * ms


def test_speech_is_found_with_prefix_and_closing_silence():
    """Positions include the padding before and the silence after; the utterance knows how long it was loud."""
    audio = InputAudio()
    data = silence(500) + noise(300)[: 300 * 48] + silence(400)
    started, stopped = audio.append(data, PCM, VAD)
    assert started == Started(400)
    assert isinstance(stopped, Stopped)
    assert stopped.audio_end_ms == 1_000
    assert stopped.utterance.audio == data[400 * 48 : 1_000 * 48]
    assert (stopped.utterance.duration_ms, stopped.utterance.speech_ms) == (600, 300)
    assert audio.buffered_ms == 200


@pytest.mark.parametrize("chunk_ms", [1, 7, 20, 33, 1_000])
def test_result_does_not_depend_on_the_size_of_pieces(chunk_ms):
    """The same audio in pieces of any size gives the same changes."""
    data = silence(500) + noise(300)[: 300 * 48] + silence(400) + noise(300)[: 300 * 48] + silence(400)
    whole = InputAudio().append(data, PCM, VAD)
    audio, step = InputAudio(), chunk_ms * 48
    pieces = [change for i in range(0, len(data), step) for change in audio.append(data[i : i + step], PCM, VAD)]
    assert pieces == whole
    assert len(whole) == 4


def test_prefix_never_reaches_into_a_committed_turn():
    """Speech right after a commit starts where the last turn ended."""
    audio = InputAudio()
    audio.append(silence(500), PCM, VAD)
    audio.take()
    (started,) = audio.append(silence(20) + noise(100)[: 100 * 48], PCM, VAD)
    assert started == Started(500)


def test_commit_in_the_middle_of_speech_takes_what_is_there():
    """A client may commit while somebody speaks; the detector then starts anew."""
    audio = InputAudio()
    audio.append(silence(200) + noise(200)[: 200 * 48], PCM, VAD)
    assert audio.speaking_since_ms == 100
    utterance = audio.take()
    assert (utterance.duration_ms, utterance.speech_ms) == (300, 200)
    assert audio.speaking_since_ms is None
    assert audio.append(silence(400), PCM, VAD) == []


def test_clear_empties_but_positions_go_on():
    """After a clear nothing is buffered, and the clock of the session is not set back."""
    audio = InputAudio()
    audio.append(noise(1_000)[: 1_000 * 48], PCM, None)
    audio.clear()
    assert (audio.buffered_ms, audio.position_ms) == (0, 1_000)


def test_mu_law_counts_eight_bytes_a_millisecond():
    """The same speech as mu-law is found at the same place, also after a change of format."""
    audio = InputAudio()
    audio.append(silence(100), PCM, VAD)
    data = from_pcm24(silence(500) + noise(300)[: 300 * 48] + silence(400), PCMU)
    started, stopped = audio.append(data, PCMU, VAD)
    assert (started.audio_start_ms, stopped.audio_end_ms) == (500, 1_100)
    assert len(stopped.utterance.audio) == 600 * 8


def test_long_silence_is_forgotten():
    """While nobody speaks only the last seconds are kept in memory."""
    audio = InputAudio()
    for _ in range(30):
        audio.append(silence(1_000), PCM, VAD)
    assert (audio.position_ms, audio.buffered_ms) == (30_000, KEPT_IN_SILENCE_MS)
    assert len(audio.take().audio) == KEPT_IN_SILENCE_MS * 48
