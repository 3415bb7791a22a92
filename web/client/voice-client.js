// @ts-check
/**
 * Talk to a voice gateway from a web page: microphone, speaker, captions, reconnection.
 *
 * Both dialects are understood: the `preview` names of `wss://HOST/` and OpenAI's own of `wss://HOST/v1/realtime`.
 * docs/client.md has a page in 20 lines and the meaning of every event.
 *
 * @typedef {object} VoiceOptions
 * @property {string} url gateway address; ws, wss, http, https or relative to the page
 * @property {() => (string | Promise<string>)} token asked before every connection and when the token runs out, so tokens may be short-lived
 * @property {string} agentId
 * @property {string} [conversationId] resumes a conversation of this user
 * @property {string} [voice] default: the agent's own
 * @property {'query' | 'subprotocol'} [tokenIn] how the token travels; `subprotocol` keeps it out of access logs. Default `query`
 * @property {import('./microphone.js').Processing} [processing] browser sound processing, all on by default
 * @property {{capture: string | URL, playback: string | URL}} [worklets] where the worklet files are; default: beside this file
 * @property {Record<string, string>} [query] further query parameters
 *
 * @typedef {'idle' | 'connecting' | 'live' | 'reconnecting' | 'ended'} VoiceState
 * @typedef {import('./conversation.js').Activity} Activity what is going on inside `live`
 * @typedef {import('./captions.js').Caption} Caption
 * @typedef {import('./words.js').Problem} Problem
 * @typedef {{code: string, message: string, detail: string, retryInMs: number}} Notice
 *
 * @typedef {object} VoiceEventMap
 * @property {CustomEvent<{state: VoiceState, reason: string, retryInMs: number, attempt: number}>} state
 * @property {CustomEvent<{activity: Activity}>} activity
 * @property {CustomEvent<Caption>} caption
 * @property {CustomEvent<{mic: number, agent: number}>} level peaks 0..1, 17 to 40 times a second
 * @property {CustomEvent<{ms: number}>} latency end of your turn to the first sound of the answer, by the page's clock
 * @property {CustomEvent<Problem>} problem
 * @property {CustomEvent<Notice>} notice
 * @property {CustomEvent<{direction: 'received' | 'sent', event: Record<string, any>}>} event every event on the wire, unchanged
 */
import { Conversation } from './conversation.js';
import { Link, NoToken } from './link.js';
import { toBase64 } from './pcm.js';
import { Sound } from './sound.js';
import { WakeLock } from './wake-lock.js';
import { NOTICES, microphoneWords, problemWords } from './words.js';

/** Two seconds of 40 ms pieces: what is said while the connection is being opened is not lost. */
const MOST_WAITING_PIECES = 50;
/** Typed lines kept while connecting. */
const MOST_WAITING_TEXTS = 20;

export class VoiceClient extends EventTarget {
  /** @type {VoiceState} */ #state = 'idle';
  /** @type {Sound | null} */ #sound = null;
  /** The last conversation's, still playing what the agent had said. @type {Sound | null} */ #leaving = null;
  /** @type {Link | null} */ #link = null;
  /** Raised by every start and end, so that what was begun before can see that it is stale. */
  #run = 0;
  #muted = false;
  #lastToken = '';
  #linkFull = false;
  #wakeLock = new WakeLock();
  /** @type {object[]} */ #waitingPieces = [];
  /** @type {string[]} */ #waitingTexts = [];
  /** @type {((live: boolean) => void) | null} */ #began = null;
  #conversation = new Conversation({
    send: (event) => this.send(event),
    tell: (name, detail) => this.#tell(name, detail),
    notice: (code, detail, retryInMs) => this.#notice(code, detail, retryInMs),
    speaker: () => this.#sound?.speaker,
    answered: (conversationId) => this.#answered(conversationId),
    refreshToken: () => void this.refreshToken(),
  });

  /** @param {VoiceOptions} options may be changed between conversations */
  constructor(options) {
    super();
    this.options = options;
    /** Set by the server; kept over reconnections and stop(), so that start() goes on with it. Empty it to begin anew. */
    this.conversationId = options.conversationId ?? '';
    /** Pieces of 40 ms; `played` and `audible` in samples at 24 kHz of this connection. */
    this.stats = { sentPieces: 0, droppedPieces: 0, played: 0, audible: 0, queuedMs: 0, underruns: 0, overflow: 0, reconnects: 0 };
  }

  get state() { return this.#state; }
  get activity() { return this.#conversation.activity; }
  get muted() { return this.#muted; }
  get pushToTalk() { return this.#conversation.turns.on; }
  get holding() { return this.#conversation.turns.holding; }
  get hasMicrophone() { return this.#sound?.hasMicrophone ?? false; }
  /** The agent's sound, for drawing it; null unless connected. */
  get analyser() { return this.#sound?.analyser ?? null; }
  /** How often the agent was interrupted in this page. */
  get cuts() { return this.#conversation.cuts; }

  /**
   * Listen to an event, with its type known.
   *
   * @template {keyof VoiceEventMap} K
   * @param {K} name
   * @param {(event: VoiceEventMap[K]) => void} listener
   * @returns {() => void} call it to stop listening
   */
  on(name, listener) {
    this.addEventListener(name, /** @type {EventListener} */ (listener));
    return () => this.removeEventListener(name, /** @type {EventListener} */ (listener));
  }

  /** @param {string} name @param {object} detail */
  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }

  /** @param {VoiceState} state @param {{reason?: string, retryInMs?: number, attempt?: number}} [more] */
  #setState(state, { reason = '', retryInMs = 0, attempt = 0 } = {}) {
    this.#state = state;
    this.#tell('state', { state, reason, retryInMs, attempt });
    if (state !== 'live' && state !== 'ended') return;
    this.#began?.(state === 'live');
    this.#began = null;
  }

  /** @param {string} code @param {string} [detail] @param {number} [retryInMs] */
  #notice(code, detail = '', retryInMs = 0) {
    this.#tell('notice', { code, message: (NOTICES[code] ?? detail) || code, detail, retryInMs });
  }

  /**
   * Talk. Call it from a click or key handler: browsers open sound only on a gesture.
   * In a conversation without a microphone it opens one.
   *
   * @param {{deviceId?: string}} [microphone]
   * @returns {Promise<boolean>} true once live; false if that was not possible (a `problem` says why) or stop() came first
   */
  async start({ deviceId = '' } = {}) {
    if (!this.#sound) return this.#begin(deviceId);
    return this.hasMicrophone || this.setMicrophone(deviceId);
  }

  /**
   * Connect with no microphone: typing works and answers are heard. Call it from a click or key handler.
   *
   * @returns {Promise<boolean>} as start()
   */
  async startText() { return this.#sound ? true : this.#begin(null); }

  /** @param {string | null} deviceId null: no microphone @returns {Promise<boolean>} */
  async #begin(deviceId) {
    const run = ++this.#run;
    void this.#leaving?.close();
    this.#setState('connecting');
    try {
      const sound = this.#sound = new Sound(this.options, this.#soundEars(), { talking: deviceId !== null });
      if (deviceId !== null && !await this.#openMicrophone(deviceId, { fatal: true })) return false;
      const audible = await sound.openSpeaker();
      if (run !== this.#run) return false;
      if (!audible) this.#tell('problem', problemWords('no_sound'));
    } catch (error) {
      return run === this.#run ? this.#fail(problemWords('worklet', { fatal: true, detail: String(error) })) : false;
    }
    const link = this.#link = new Link(this.#linkEars());
    /** @type {Promise<boolean>} */
    const began = new Promise((resolve) => { this.#began = resolve; });
    void link.open();
    return began;
  }

  /** @param {string} deviceId @param {{fatal: boolean}} how @returns {Promise<boolean>} */
  async #openMicrophone(deviceId, { fatal }) {
    const run = this.#run;
    const sound = /** @type {Sound} */ (this.#sound);
    try {
      if (!navigator.mediaDevices) throw new DOMException('no mediaDevices', 'TypeError');
      sound.mute(this.#muted);
      await sound.openMicrophone(deviceId, this.options.processing ?? {});
    } catch (error) {
      if (run !== this.#run) return false;
      const words = { ...microphoneWords(error), fatal };
      if (fatal) return this.#fail(words);
      this.#tell('problem', words);
      return false;
    }
    if (run === this.#run) return true;
    await sound.close();                          // stop() was called while the browser was asking
    return false;
  }

  /** @param {Problem} words @returns {false} */
  #fail(words) {
    this.#tell('problem', words);
    void this.#end(words.code);
    return false;
  }

  /** End the conversation; start() can go on with it. @param {string} [reason] told in the `state` event */
  async stop(reason = 'you') {
    if (this.#state === 'idle' || this.#state === 'ended') return;
    this.#conversation.turns.letGo();
    await this.#end(reason);
  }

  /**
   * @param {string} reason
   * @param {{after?: boolean}} [how] after: what the agent has already said is heard to its end
   */
  async #end(reason, { after = false } = {}) {
    this.#run++;
    const sound = this.#sound;
    this.#sound = null;
    this.#link?.close();
    this.#link = null;
    this.#waitingPieces = [];
    this.#waitingTexts = [];
    this.#conversation.lost();
    this.#conversation.captions.settle();
    this.#wakeLock.release();
    this.#tell('level', { mic: 0, agent: 0 });
    this.#setState('ended', { reason });
    if (after) this.#leaving = sound;
    await sound?.close({ after });
  }

  /** @returns {import('./link.js').LinkEars} */
  #linkEars() {
    return {
      address: () => this.#address(),
      opened: () => { for (const piece of this.#waitingPieces.splice(0)) this.send(piece); },
      received: (event) => {
        this.#tell('event', { direction: 'received', event });
        this.#conversation.received(event);
      },
      waiting: ({ retryInMs, attempt, why }) => {
        this.stats.reconnects++;
        this.#conversation.lost();
        this.#conversation.captions.settle();
        this.#setState('reconnecting', { reason: why.code, retryInMs, attempt });
      },
      ended: (why) => void this.#refused(why),
    };
  }

  /** @returns {Promise<{url: URL, protocols: string[]}>} */
  async #address() {
    const { url: base, agentId, voice, tokenIn, query } = this.options;
    const token = await this.options.token();
    if (!token) throw new NoToken();
    this.#lastToken = token;
    const url = new URL(base, globalThis.location?.href);
    url.protocol = url.protocol.replace('http', 'ws');
    const hidden = tokenIn === 'subprotocol';
    const all = { token: hidden ? '' : token, agent_id: agentId, conversation_id: this.conversationId, voice, ...query };
    for (const [name, value] of Object.entries(all)) if (value) url.searchParams.set(name, value);
    return { url, protocols: hidden ? ['realtime', `openai-insecure-api-key.${token}`] : [] };
  }

  /** @param {string} [conversationId] */
  #answered(conversationId) {
    this.conversationId = conversationId || this.conversationId;
    this.#link?.answered();
    if (this.#state === 'live') return;
    this.#setState('live');
    this.#wakeLock.hold();
    this.#conversation.live();
    for (const text of this.#waitingTexts.splice(0)) void this.#conversation.say(text);
  }

  /** @param {Problem & {next: import('./words.js').Next}} why */
  async #refused(why) {
    const run = this.#run;
    const used = this.#lastToken;
    this.#lastToken = '';
    if (why.code === 'unauthorized' && used) {
      // The token may have run out a moment ago: a different one is worth one more try.
      const fresh = await Promise.resolve().then(this.options.token).catch(() => '');
      if (run !== this.#run) return;
      if (fresh && fresh !== used) { void this.#link?.open(); return; }
    }
    if (why.code === 'not_found' && /conversation/i.test(why.detail)) this.conversationId = '';
    if (why.code === 'agent_ended') this.#notice('agent_ended', why.message); else this.#tell('problem', { ...why, fatal: true });
    await this.#end(why.code, { after: true });
  }

  /** Give the live session a new token; the gateway asks for it with the notice `token_expiring`. */
  async refreshToken() {
    const token = await Promise.resolve().then(this.options.token).catch(() => '');
    if (!token) { this.#tell('problem', problemWords('token_failed')); return; }
    this.#lastToken = token;
    if (this.#link?.send({ type: 'session.refresh', token }) !== 'sent') return;
    this.#tell('event', { direction: 'sent', event: { type: 'session.refresh', token: '(hidden)' } });
    this.#notice('token_expiring');
  }

  /** @returns {import('./sound.js').SoundEars} */
  #soundEars() {
    return {
      piece: (pcm) => this.#offer({ type: 'input_audio_buffer.append', audio: toBase64(pcm) }),
      level: (mic, agent) => this.#tell('level', { mic, agent }),
      started: () => this.#conversation.soundStarted(),
      finished: (_item, last) => { if (last) this.#conversation.soundFinished(); },
      stats: (stats) => Object.assign(this.stats, stats),
      notice: (code) => this.#notice(code),
      problem: (code) => this.#tell('problem', problemWords(code)),
    };
  }

  /** @param {object} piece */
  #offer(piece) {
    if (!this.#conversation.turns.passes()) return;
    if (!this.#link?.isOpen) {
      this.#waitingPieces.push(piece);
      if (this.#waitingPieces.length > MOST_WAITING_PIECES) this.#waitingPieces.shift();
      return;
    }
    if (this.send(piece)) { this.stats.sentPieces++; this.#linkFull = false; return; }
    this.stats.droppedPieces++;
    if (!this.#linkFull) this.#notice('slow_link');
    this.#linkFull = true;
  }

  /** Send any event of the protocol. @param {Record<string, any>} event @returns {boolean} false if not connected or stalled */
  send(event) {
    if (this.#link?.send(event) !== 'sent') return false;
    this.#tell('event', { direction: 'sent', event });
    return true;
  }

  /**
   * Say something in writing; the agent stops and answers it. While connecting, the text waits.
   *
   * @param {string} text
   * @returns {boolean} false if it is empty or there is no conversation: start one first
   */
  say(text) {
    const line = text.trim();
    if (!line || this.#state === 'idle' || this.#state === 'ended') return false;
    if (this.#state === 'live') void this.#conversation.say(line);
    else if (this.#waitingTexts.length < MOST_WAITING_TEXTS) this.#waitingTexts.push(line); else return false;
    return true;
  }

  /** Stop the agent's answer, spoken or still being made. */
  interrupt() { void this.#conversation.interrupt(); }

  /** Muted: silence is sent, the connection stays. @param {boolean} muted */
  setMuted(muted) {
    this.#muted = muted;
    this.#sound?.mute(muted);
  }

  /** Switch push to talk; on: nothing is sent unless hold(true), and hold(false) ends the turn. @param {boolean} on */
  setPushToTalk(on) { this.#conversation.turns.set(on); }

  /** The push-to-talk button went down or up. @param {boolean} down */
  hold(down) { this.#conversation.turns.hold(down); }

  /** Another voice. A session cannot change it once it spoke, so a live one is opened anew, with its conversation. @param {string} voice */
  setVoice(voice) {
    this.options.voice = voice;
    if (this.#state !== 'live' && this.#state !== 'reconnecting') return;
    this.#conversation.lost();
    this.#setState('reconnecting', { reason: 'voice' });
    void this.#link?.open();
  }

  /** Use another microphone, or open one in a conversation without. @param {string} deviceId empty: default @returns {Promise<boolean>} */
  async setMicrophone(deviceId) { return this.#sound ? this.#openMicrophone(deviceId, { fatal: false }) : false; }

  /** Use another speaker. @param {string} deviceId empty: default @returns {Promise<boolean>} false where browsers cannot */
  async setSpeaker(deviceId) { return await this.#sound?.speaker.use(deviceId) ?? false; }

  /** Bring back sound that the device paused; call it from a tap. @returns {Promise<boolean>} sound is running */
  async resumeSound() { return await this.#sound?.resume() ?? false; }

  /** Do not wait for the rest of the back-off. */
  retryNow() { this.#link?.retryNow(); }
}
