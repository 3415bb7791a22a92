// @ts-check
/**
 * Both directions of sound in one AudioContext at the device's own rate.
 *
 * One context, and not at 24 kHz: some browsers cancel no echo between contexts of different rates, and an agent that
 * hears itself interrupts itself. The worklets resample.
 *
 * @typedef {object} SoundEars
 * @property {(pcm: Int16Array) => void} piece 40 ms of the microphone
 * @property {(mic: number, agent: number) => void} level peaks 0..1
 * @property {(item: string) => void} started
 * @property {(item: string, last: boolean) => void} finished
 * @property {(stats: Record<string, number>) => void} stats
 * @property {(code: 'muted_speaking' | 'mic_silent' | 'mic_prompt' | 'mic_back') => void} notice
 * @property {(code: 'paused' | 'mic_lost' | 'mic_paused') => void} problem
 */
import { Microphone } from './microphone.js';
import { Speaker } from './speaker.js';

/** With no sound output some browsers never settle resume(). */
const RESUME_DEADLINE_MS = 1500;
/** A live microphone is never exactly silent; four seconds (100 pieces) of it mean a switch on the device. */
const SILENT_PIECES = 100;
const SILENCE = 1e-5;
/** Speech into a muted microphone: half a second (12 pieces) above a tenth of full scale. */
const MUTED_SPEECH_PIECES = 12;
const MUTED_SPEECH = 0.1;

export class Sound {
  #mic = 0;
  #agent = 0;
  #muted = false;
  #silentPieces = 0;
  #speechPieces = 0;
  #closed = false;

  /**
   * Make it inside the user's gesture.
   *
   * @param {{worklets?: {capture: string | URL, playback: string | URL}}} options
   * @param {SoundEars} ears
   * @param {{talking: boolean}} how talking: a microphone will be opened
   */
  constructor({ worklets }, ears, { talking }) {
    this.ears = ears;
    this.capture = String(worklets?.capture ?? new URL('./capture-worklet.js', import.meta.url));
    this.playback = String(worklets?.playback ?? new URL('./playback-worklet.js', import.meta.url));
    // Safari: choose the call-style route before the microphone opens.
    const session = /** @type {{audioSession?: {type: string}}} */ (navigator).audioSession;
    if (session) session.type = talking ? 'play-and-record' : 'playback';
    this.context = new AudioContext({ latencyHint: 'interactive' });
    this.resumed = this.context.resume();
    this.microphone = new Microphone(this.context, this.capture, {
      sound: (pcm, peak, raw) => this.#piece(pcm, peak, raw),
      happened: (what) => this.#happened(what),
    });
    this.speaker = new Speaker(this.context, {
      started: (item) => ears.started(item),
      finished: (item, last) => ears.finished(item, last),
      report: (stats, peak) => {
        this.#agent = peak;
        ears.stats(stats);
        if (!this.hasMicrophone) ears.level(0, peak);
      },
    });
  }

  get hasMicrophone() { return Boolean(this.microphone.stream); }
  get analyser() { return this.speaker.analyser; }

  /** @returns {Promise<boolean>} false if there is no sound output (captions still work) @throws {DOMException} no worklet */
  async openSpeaker() {
    const running = await Promise.race([
      this.resumed.then(() => true, () => false),
      new Promise((resolve) => { setTimeout(resolve, RESUME_DEADLINE_MS, false); }),
    ]);
    await this.speaker.open(this.playback);
    // A call, a lock screen or another tab may stop the sound; a tap brings it back (resume()).
    this.context.onstatechange = () => { if (!this.#closed && this.context.state !== 'running') this.ears.problem('paused'); };
    return /** @type {boolean} */ (running);
  }

  /** @param {string} deviceId @param {import('./microphone.js').Processing} processing @throws {DOMException} as getUserMedia */
  async openMicrophone(deviceId, processing) {
    this.#silentPieces = 0;
    await this.microphone.open(deviceId, processing);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#muted = muted;
    this.#speechPieces = 0;
    this.microphone.mute(muted);
  }

  /** @param {Int16Array} pcm @param {number} peak @param {number} raw */
  #piece(pcm, peak, raw) {
    this.#mic = peak;
    this.ears.level(this.#mic, this.#agent);
    this.ears.piece(pcm);
    // Told once: -1 says it was told, -2 that sound came after it.
    if (this.#silentPieces === -1 && raw >= SILENCE) { this.#silentPieces = -2; this.ears.notice('mic_back'); }
    if (this.#silentPieces >= 0) this.#silentPieces = raw < SILENCE ? this.#silentPieces + 1 : 0;
    if (this.#silentPieces === SILENT_PIECES) { this.#silentPieces = -1; this.ears.notice('mic_silent'); }
    if (!this.#muted || raw < MUTED_SPEECH) return;
    if (++this.#speechPieces === MUTED_SPEECH_PIECES) this.ears.notice('muted_speaking');
  }

  /** @param {'prompt' | 'lost' | 'paused' | 'back'} what */
  #happened(what) {
    if (this.#closed) return;
    if (what === 'prompt') this.ears.notice('mic_prompt');
    else if (what === 'back') this.ears.notice('mic_back');
    else this.ears.problem(what === 'lost' ? 'mic_lost' : 'mic_paused');
  }

  /** Bring back sound that the device paused; call it from a tap. @returns {Promise<boolean>} */
  async resume() {
    if (this.context.state === 'running') return true;
    await Promise.race([this.context.resume(), new Promise((resolve) => { setTimeout(resolve, RESUME_DEADLINE_MS); })]);
    return /** @type {string} */ (this.context.state) === 'running';
  }

  /** @param {{after?: boolean}} [how] after: what is queued for the speaker is played first */
  async close({ after = false } = {}) {
    this.#closed = true;
    await this.microphone.close();
    if (after) await this.speaker.played();
    // Two may end it: the last words played out, and a new conversation that wants silence now.
    if (this.context.state !== 'closed') await this.context.close().catch(() => {});
  }
}
