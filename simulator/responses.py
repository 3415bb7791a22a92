"""Responses: one at a time in the conversation, others beside it; planned by the script, paced, cancelled, counted."""
from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from simulator.audio import BYTES_PER_MS, from_pcm24, silence, to_pcm24
from simulator.config import reasons
from simulator.context import Context
from simulator.items import Item, item_from_client, new_id
from simulator.ladder import Ladder
from simulator.schema import Invalid
from simulator.script import Call, Reply, Say, Situation, reply_to, server_error

CHUNK_MS = 100
# Words run ahead of their sound by about this much, as in captures.
TRANSCRIPT_LEAD_MS = 400
# Pause between "Here is what you said." and the caller's own voice; longest stretch of it that is played back.
ECHO_PAUSE_MS, ECHO_MAX_MS = 200, 15_000
# A written word takes this long at speed 1: twenty words a second, about what text models stream.
WORD_S = 0.05
ARGUMENT_CHUNK = 16  # characters a delta
RATE_LIMITS_DELAY_S = 0.04  # seen about 40 ms after response.done

_WORD = re.compile(r"\S+\s*")


class Response:
    """One response from `response.created` to `response.done`. Start it by running `run` as a task."""

    def __init__(self, context: Context, options: Mapping[str, Any], history: list[Item]) -> None:
        self.id = new_id("resp")
        self.in_conversation = options.get("conversation", "auto") == "auto"
        self.finished = False
        self._context = context
        self._options = options
        self._history = history
        config = context.config
        output = {**config.output, **options.get("audio", {}).get("output", {})}
        self._format, self._voice, self._speed = output["format"], output["voice"], float(output["speed"])
        self._modalities = options.get("output_modalities", config["output_modalities"])
        self._max_tokens = options.get("max_output_tokens", config["max_output_tokens"])
        conversation = context.conversation if self.in_conversation else None
        self._ladder = Ladder(context, self.id, conversation)
        self._situation = Situation(
            history,
            options.get("tools", config["tools"]),
            options.get("tool_choice", config["tool_choice"]),
            config["instructions"],
            options.get("instructions", ""),
        )

    @property
    def audio_ms(self) -> int:
        """Milliseconds of audio sent so far."""
        return self._ladder.audio_ms

    def announce(self) -> None:
        """Send `response.created`."""
        self._context.send("response.created", response=self._shown("in_progress", None))

    async def run(self) -> None:
        """Produce the outputs, paced, and finish."""
        reply = self._reply()
        await asyncio.sleep(self._context.settings.slow_s if reply.slow else self._context.settings.think_s)
        slow = self._context.faults.pop("slow_response")
        if slow:
            await asyncio.sleep(slow.seconds)
        if reply.drop:
            self._context.wire.abort()
            return
        whole = True
        for step in reply.steps:
            whole = await (self._say(step) if isinstance(step, Say) else self._call(step))
            self._ladder.close("completed" if whole else "incomplete")
            if not whole:
                break
        if reply.error:
            self.finish("failed", error=reply.error)
        elif whole:
            self.finish("completed")
        else:
            self.finish("incomplete", reason="max_output_tokens")

    def finish(
        self, status: str, *, reason: str | None = None, error: Mapping[str, str | None] | None = None
    ) -> None:
        """Close what is open and send `response.done` with the usage, once."""
        if self.finished:
            return
        self.finished = True
        self._ladder.close("completed" if status == "completed" else "incomplete")
        details: dict[str, Any] | None = None if status == "completed" else {"type": status}
        if details is not None and reason:
            details["reason"] = reason
        if details is not None and error:
            details["error"] = dict(error)
        shown = self._shown(status, details)
        shown["usage"] = self._usage()
        self._context.send("response.done", response=shown)

    def _reply(self) -> Reply:
        failed = self._context.faults.pop("response_failed", "rate_limited", "quota_failed")
        if failed is None:
            return reply_to(self._situation)
        errors: Mapping[str, Mapping[str, str | None]] = {
            "response_failed": server_error(),
            "rate_limited": {
                "type": "tokens", "code": "rate_limit_exceeded",
                "message": "Rate limit reached. Please try again in 2s.",
            },
            "quota_failed": {
                "type": "insufficient_quota", "code": "insufficient_quota",
                "message": "You exceeded your current quota, please check your plan and billing details.",
            },
        }
        return Reply(error=errors[failed.name])

    def _shown(self, status: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [item.data for item in self._ladder.outputs],
            "conversation_id": self._context.conversation.id if self.in_conversation else None,
            "output_modalities": self._modalities,
            "max_output_tokens": self._max_tokens,
            "audio": {"output": {"format": self._format, "voice": self._voice}},
            "usage": None,
            "metadata": self._options.get("metadata"),
        }

    def _usage(self) -> Mapping[str, Any]:
        audio = -(-self.audio_ms // 50)
        prompt = [self._situation.session_instructions, self._situation.response_instructions, self._situation.tools]
        return self._context.meter.usage(
            prompt, self._history, output_text=self._ladder.tokens - audio, output_audio=audio
        )

    def _within_limit(self) -> bool:
        return self._max_tokens == "inf" or self._ladder.tokens < int(self._max_tokens)

    async def _say(self, step: Say) -> bool:
        """Send one message; return False when the token limit cut it."""
        phase = step.phase if reasons(self._context.config.model) else None
        if self._modalities == ["text"]:
            return await self._write(step.text, phase)
        format_type = self._format["type"]
        voice = self._voice if isinstance(self._voice, str) else "alloy"
        pcm = await self._context.voice.say(step.text, voice, self._speed)
        words_ms = len(pcm) // BYTES_PER_MS["audio/pcm"]
        if step.echo:
            pcm += silence(ECHO_PAUSE_MS) + await asyncio.to_thread(_echo_of, step.echo)
        audio = await asyncio.to_thread(from_pcm24, pcm, format_type)
        self._ladder.open_message(audio_format=format_type, phase=phase)
        return await self._speak(_WORD.findall(step.text), words_ms, audio, BYTES_PER_MS[format_type])

    async def _speak(self, words: list[str], words_ms: int, audio: bytes, bytes_per_ms: int) -> bool:
        """Send sound in pieces of 100 ms, each after the words that belong to it, faster than it plays."""
        clock, said = asyncio.get_running_loop().time, 0
        started, before_ms = clock(), self.audio_ms
        step = CHUNK_MS * bytes_per_ms
        for offset in range(0, len(audio), step):
            reached_ms = offset // bytes_per_ms + TRANSCRIPT_LEAD_MS
            due = len(words) if not words_ms else min(len(words), -(-len(words) * reached_ms // words_ms))
            for word in words[said:due]:
                self._ladder.add_text(word)
            said = max(said, due)
            self._ladder.add_audio(audio[offset : offset + step])
            if not self._within_limit():
                return False
            await self._pause(started + self._scaled((self.audio_ms - before_ms) / 1000) - clock())
        for word in words[said:]:
            self._ladder.add_text(word)
        return True

    async def _write(self, text: str, phase: str | None) -> bool:
        self._ladder.open_message(audio_format=None, phase=phase)
        for word in _WORD.findall(text):
            self._ladder.add_text(word)
            if not self._within_limit():
                return False
            await self._pause(self._scaled(WORD_S))
        return True

    async def _call(self, step: Call) -> bool:
        self._ladder.open_call(step.name)
        for offset in range(0, len(step.arguments), ARGUMENT_CHUNK):
            self._ladder.add_arguments(step.arguments[offset : offset + ARGUMENT_CHUNK])
            if not self._within_limit():
                return False
            await self._pause(0)
        return True

    def _scaled(self, seconds: float) -> float:
        speed = self._context.settings.speed
        return seconds / speed if speed else 0.0

    async def _pause(self, seconds: float) -> None:
        await self._context.wire.drain()
        await asyncio.sleep(max(seconds, 0))


def _echo_of(item: Item) -> bytes:
    limit = ECHO_MAX_MS * BYTES_PER_MS[item.format_type]
    return to_pcm24(bytes(item.audio[:limit]), item.format_type)


class Responses:
    """All responses of a session."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[str, tuple[Response, asyncio.Task[None]]] = {}
        self.on_done: list[Callable[[Response], None]] = []

    @property
    def active(self) -> Response | None:
        """The response in progress in the conversation, or None."""
        return next((response for response, _ in self._running.values() if response.in_conversation), None)

    def create(self, options: Mapping[str, Any]) -> None:
        """Start a response.

        Raises:
            Invalid: If one is active in the conversation, or the input refers to an item that does not exist.
        """
        response = Response(self._context, options, self._history(options))
        if response.in_conversation and self.active:
            message = (
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise Invalid("conversation_already_has_active_response", message)
        response.announce()
        task = self._context.spawn(self._run(response), f"response {response.id}")
        self._running[response.id] = (response, task)

    def cancel(self, reason: str, response_id: str | None = None) -> None:
        """End a response at once, with what was sent so far.

        Raises:
            Invalid: If there is no such response in progress.
        """
        target = self.active.id if response_id is None and self.active else response_id
        if target not in self._running:
            raise Invalid("response_cancel_not_active", "Cancellation failed: no active response found")
        response, task = self._running.pop(target)
        response.finish("cancelled", reason=reason)
        task.cancel()
        self._after(response)

    async def _run(self, response: Response) -> None:
        await response.run()
        if self._running.pop(response.id, None):
            self._after(response)

    def _after(self, response: Response) -> None:
        if not response.finished:
            return
        for call in self.on_done:
            call(response)
        limits = self._context.meter.rate_limits()
        self._context.later(RATE_LIMITS_DELAY_S, lambda: self._context.send("rate_limits.updated", rate_limits=limits))

    def _history(self, options: Mapping[str, Any]) -> list[Item]:
        if "input" not in options:
            return list(self._context.conversation)
        return [self._input_item(data) for data in options["input"]]

    def _input_item(self, data: Mapping[str, Any]) -> Item:
        if data["type"] != "item_reference":
            return item_from_client(data, self._context.config.input_format)
        found = self._context.conversation.find(data["id"])
        if found is None:
            raise Invalid("invalid_value", f"Item with ID '{data['id']}' not found.", "response.input")
        return found
