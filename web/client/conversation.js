// @ts-check
/**
 * What the protocol means for a conversation: events in; captions, sound and events out.
 *
 * Knows nothing of sockets, permission or devices; those are the client's.
 *
 * @typedef {object} Hub what the conversation may ask of the client
 * @property {(event: Record<string, any>) => boolean} send
 * @property {(name: string, detail: object) => void} tell
 * @property {(code: string, detail?: string, retryInMs?: number) => void} notice
 * @property {() => import('./speaker.js').Speaker | undefined} speaker
 * @property {(conversationId?: string) => void} answered the server took the session
 * @property {() => void} refreshToken
 */
import { Captions } from './captions.js';
import { gaName, turnDetectionOf, turnDetectionUpdate } from './dialect.js';
import { fromBase64, toBase64 } from './pcm.js';
import { PushToTalk } from './push-to-talk.js';
import { Replies } from './replies.js';
import { problemWords } from './words.js';

/** Errors that answer something sent in good faith a moment too late (OpenAI Realtime error codes). */
const HARMLESS = new Set(['response_cancel_not_active', 'input_audio_buffer_commit_empty', 'item_truncate_invalid_item_id',
  'item_delete_invalid_item_id', 'unsupported_content_type']);
/** The gateway sends an error just before a close of the same meaning, and the close has the better words. */
const ERROR_BEFORE_CLOSE_MS = 300;
/** An answer that has not begun by now will not: noise was taken for speech. */
const LONGEST_THOUGHT_MS = 15_000;
/** Your words may come after the answer to them, but not longer after it. */
const LATE_WORDS_MS = 5_000;

/** A piece of silence as the capture worklet would make it. */
const PIECE_MS = 40;
const SILENT_PIECE = toBase64(new Int16Array(24 * PIECE_MS));

/** @typedef {'quiet' | 'listening' | 'hearing' | 'thinking' | 'speaking'} Activity */

export class Conversation {
  /** @type {Activity} */ activity = 'quiet';
  cuts = 0;
  /** @type {any} */ #session = null;
  #replies = new Replies();
  #speaking = false;
  #turnEndedAt = 0;
  #count = 0;
  #retried = false;
  #askOnDone = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #heldError;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #thought;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #lateWords;

  /** @param {Hub} hub */
  constructor(hub) {
    this.hub = hub;
    this.captions = new Captions((caption) => hub.tell('caption', caption));
    this.turns = new PushToTalk({
      setTurnDetection: (turns) => { hub.send({ event_id: this.#name('turns'), ...turnDetectionUpdate(this.#session, turns) }); },
      pressed: () => { void this.interrupt(); hub.send({ type: 'input_audio_buffer.clear' }); this.#set('hearing'); },
      released: () => { hub.send({ type: 'input_audio_buffer.commit', event_id: this.#name('commit') }); this.#askForAnswer(); },
      fellSilent: (ms) => { for (let sent = 0; sent < ms; sent += PIECE_MS) hub.send({ type: 'input_audio_buffer.append', audio: SILENT_PIECE }); },
      tooShort: () => { hub.send({ type: 'input_audio_buffer.clear' }); this.#set('listening'); hub.notice('held_too_short'); },
    });
    /** @type {Record<string, (event: any) => void>} */
    this.handlers = {
      'session.created': (e) => { this.#told(e.session); this.hub.answered(); },
      'session.updated': (e) => this.#told(e.session),
      'conversation.created': (e) => this.hub.answered(e.conversation_id),
      'input_audio_buffer.speech_started': (e) => this.#speechStarted(e),
      'input_audio_buffer.speech_stopped': () => { this.#turnEndedAt = performance.now(); this.#set('thinking'); },
      'input_audio_buffer.committed': (e) => { if (e.item_id) this.captions.expect(e.item_id); },
      'conversation.item.input_audio_transcription.delta': (e) => this.captions.add('you', e.item_id, e.delta ?? ''),
      'conversation.item.input_audio_transcription.completed': (e) => this.captions.finish('you', e.item_id, e.transcript ?? ''),
      'conversation.item.input_audio_transcription.failed': (e) => this.captions.finish('you', e.item_id, ''),
      'response.created': (e) => { this.#replies.created(e.response?.id); if (!this.#speaking) this.#set('thinking'); },
      'response.output_audio.delta': (e) => this.#audio(e),
      'response.output_audio.done': (e) => this.#audioDone(e),
      'response.output_audio_transcript.delta': (e) => this.#words(e),
      'response.output_audio_transcript.done': (e) => this.#wordsDone(e, e.transcript),
      'response.output_text.delta': (e) => this.#words(e),
      'response.output_text.done': (e) => this.#wordsDone(e, e.text),
      'response.done': (e) => this.#responseDone(e.response ?? {}),
      'gateway.notice': (e) => this.#noticed(e),
      'error': (e) => this.#error(typeof e.error === 'object' && e.error ? e.error : { message: String(e.error ?? e.message ?? '') }),
    };
  }

  /** Take one event from the server; unknown ones are left to the `event` listeners. @param {Record<string, any>} event */
  received(event) { this.handlers[gaName(event.type)]?.(event); }

  /** @param {string} what @returns {string} an event id an error can be traced to */
  #name(what) { return `${what}_${++this.#count}`; }

  /** @param {any} session */
  #told(session) {
    if (session) this.#session = session;
    this.turns.told(turnDetectionOf(session));
  }

  /** @param {Activity} activity */
  #set(activity) {
    clearTimeout(this.#thought);
    if (activity === 'thinking') this.#thought = setTimeout(() => this.#set('listening'), LONGEST_THOUGHT_MS);
    if (activity === this.activity) return;
    this.activity = activity;
    this.hub.tell('activity', { activity });
  }

  /** A new connection took the session. */
  live() {
    this.#set('listening');
    this.turns.renew();
  }

  /** The connection is gone; nothing that was under way will be finished. */
  lost() {
    clearTimeout(this.#heldError);
    clearTimeout(this.#lateWords);
    void this.#cut({ tellServer: false });
    this.#replies.lost();
    this.#turnEndedAt = 0;
    this.#askOnDone = false;
    this.#set('quiet');
  }

  /** @param {any} event */
  #speechStarted(event) {
    // An agent may be set not to be interrupted (its greeting, for one): then its sound goes on.
    if (this.turns.serverInterrupts) void this.#cut({ tellServer: true });
    if (event.item_id) this.captions.expect(event.item_id);
    this.#set('hearing');
  }

  /** @param {any} event */
  #audio(event) {
    if (!this.#replies.takes(event)) return;
    this.hub.speaker()?.play(event.item_id, fromBase64(event.delta));
  }

  /** @param {any} event */
  #audioDone(event) {
    if (this.#replies.isCut(event)) return;
    this.#replies.complete(event.item_id);
    this.hub.speaker()?.end(event.item_id);
  }

  /** @param {any} event */
  #words(event) { if (!this.#replies.isCut(event)) this.captions.add('agent', event.item_id, event.delta ?? ''); }

  /** @param {any} event @param {string | undefined} text */
  #wordsDone(event, text) { if (!this.#replies.isCut(event)) this.captions.finish('agent', event.item_id, text ?? ''); }

  /** @param {any} response */
  #responseDone(response) {
    for (const item of this.#replies.done(response.id)) this.hub.speaker()?.end(item);
    const { reason, error } = response.status_details ?? {};
    if (response.status === 'failed') {
      this.hub.tell('problem', problemWords('response_failed', { detail: [error?.code ?? error?.type, error?.message].filter(Boolean).join(': ') }));
    }
    if (response.status === 'incomplete' && reason === 'max_output_tokens') this.hub.notice('answer_cut');
    clearTimeout(this.#lateWords);
    this.#lateWords = setTimeout(() => this.captions.giveUp(), LATE_WORDS_MS);
    if (this.#askOnDone) { this.#askOnDone = false; this.#createResponse(); return; }
    // A completed response with no sound is the model calling a tool: its answer is still to come.
    if (response.status !== 'completed' && this.activity === 'thinking') this.#set('listening');
  }

  /** First sound of an item. */
  soundStarted() {
    this.#speaking = true;
    this.#set('speaking');
    if (this.#turnEndedAt) this.hub.tell('latency', { ms: Math.round(performance.now() - this.#turnEndedAt) });
    this.#turnEndedAt = 0;
  }

  /** Last sound of the last item. */
  soundFinished() {
    this.#speaking = false;
    if (this.activity === 'speaking') this.#set(this.#replies.active ? 'thinking' : 'listening');
  }

  /**
   * Silence the agent and tell the server how much of it was heard.
   * @param {{tellServer: boolean}} how
   */
  async #cut({ tellServer }) {
    const unfinished = this.#replies.cut();
    this.#speaking = false;
    const cuts = await this.hub.speaker()?.flush() ?? [];
    this.#replies.drop(cuts.map(({ item }) => item));
    for (const { item, playedMs, receivedMs } of cuts) {
      this.captions.interrupt(item, playedMs / receivedMs);
      if (tellServer) {
        this.hub.send({ type: 'conversation.item.truncate', event_id: this.#name('cut'), item_id: item, content_index: 0, audio_end_ms: playedMs });
      }
    }
    for (const item of unfinished) this.captions.interrupt(item, 1);
    if (cuts.length) this.cuts++;
  }

  /** Stop the agent's answer, spoken or still being made. */
  async interrupt() {
    const cut = this.#cut({ tellServer: true });
    if (this.#replies.active) this.hub.send({ type: 'response.cancel', event_id: this.#name('cancel') });
    this.#askOnDone = false;
    if (this.activity === 'speaking' || this.activity === 'thinking') this.#set('listening');
    await cut;
  }

  /** Say something in writing, in place of what the agent was saying. @param {string} text */
  async say(text) {
    this.captions.finish('you', this.#name('typed'), text);
    await this.interrupt();
    this.hub.send({ type: 'conversation.item.create', event_id: this.#name('text'),
      item: { type: 'message', role: 'user', content: [{ type: 'input_text', text }] } });
    this.#askForAnswer();
  }

  #askForAnswer() {
    this.#turnEndedAt = performance.now();
    this.#set('thinking');
    this.#retried = false;
    this.#createResponse();
  }

  #createResponse() { this.hub.send({ type: 'response.create', event_id: this.#name('answer') }); }

  /** @param {any} event */
  #noticed({ code = '', message = '', retry_in_ms: retryInMs = 0 }) {
    // The answer under way died with the old line; no response.done will come for it.
    if (code === 'reconnecting') this.#replies.active = null;
    if (code === 'token_expiring') this.hub.refreshToken(); else this.hub.notice(code, message, retryInMs);
  }

  /** @param {{code?: string, type?: string, message?: string, param?: string | null, event_id?: string | null}} error */
  #error({ code, type, message = '', param, event_id: cause }) {
    if (code === 'conversation_already_has_active_response') { this.#collided(); return; }
    if (cause?.startsWith('turns_')) { this.turns.refused(); return; }
    const cutLate = cause?.startsWith('cut_') || /already shorter than/i.test(message);
    if ((code && HARMLESS.has(code)) || cutLate) return;
    const words = problemWords('error', { detail: [code ?? type, param, message].filter(Boolean).join(' · ') });
    if (message) words.message = `The server says: ${message.slice(0, 300)}`;
    clearTimeout(this.#heldError);
    this.#heldError = setTimeout(() => this.hub.tell('problem', { ...words, code: code ?? words.code }), ERROR_BEFORE_CLOSE_MS);
  }

  /** Our response.create met an answer that was still ending. One more try is enough. */
  #collided() {
    if (this.#retried) return;
    this.#retried = true;
    if (this.#replies.active) this.#askOnDone = true; else this.#createResponse();
  }
}
