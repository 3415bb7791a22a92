// @ts-check
/**
 * The handset: microphone to the line, line to the speaker, for one call.
 *
 * One AudioContext at the device's own rate: some browsers cancel no echo between contexts of different rates.
 *
 * @typedef {object} HandsetEars
 * @property {(audio: Uint8Array<ArrayBuffer>) => void} say 20 ms of the microphone, mu-law
 * @property {(mic: number, line: number) => void} level peaks 0..1
 * @property {(what: 'prompt' | 'silent' | 'heard' | 'lost' | 'paused' | 'back' | 'no_sound' | 'asleep') => void} happened
 */
import { Microphone } from '/client/lib/microphone.js';
import { encode } from './g711.js';

/** With no sound output some browsers never settle resume(). */
const RESUME_DEADLINE_MS = 1500;
/** A live microphone is never exactly silent; four seconds (200 pieces) of it mean a switch on the device. */
const SILENT_PIECES = 200;
const SILENCE = 1e-5;

export class Handset {
  #silentPieces = 0;
  #mic = 0;
  #line = 0;
  #closed = false;

  /** Make it inside the user's gesture. @param {HandsetEars} ears */
  constructor(ears) {
    this.ears = ears;
    // Safari: choose the call-style route before the microphone opens.
    const session = /** @type {{audioSession?: {type: string}}} */ (navigator).audioSession;
    if (session) session.type = 'play-and-record';
    this.context = new AudioContext({ latencyHint: 'interactive' });
    this.resumed = this.context.resume();
    /** What is being played, for tests and the curious. */
    this.analyser = new AnalyserNode(this.context, { fftSize: 4096 });
    /** @type {AudioWorkletNode | undefined} */
    this.earpiece = undefined;
    /** @type {Record<string, number>} */
    this.stats = {};
    this.microphone = new Microphone(this.context, String(new URL('./mouthpiece-worklet.js', import.meta.url)), {
      sound: (pcm, peak, raw) => this.#sound(pcm, peak, raw),
      happened: (what) => { if (!this.#closed) ears.happened(what); },
    });
  }

  get hasMicrophone() { return Boolean(this.microphone.stream); }

  /** Open the speaker. @throws {DOMException} if its worklet cannot be loaded */
  async listen() {
    const running = await Promise.race([
      this.resumed.then(() => true, () => false),
      new Promise((resolve) => { setTimeout(resolve, RESUME_DEADLINE_MS, false); }),
    ]);
    if (!running) this.ears.happened('no_sound');
    await this.context.audioWorklet.addModule(new URL('./earpiece-worklet.js', import.meta.url));
    this.earpiece = new AudioWorkletNode(this.context, 'phone-earpiece', { numberOfInputs: 0, outputChannelCount: [1] });
    this.earpiece.port.onmessage = ({ data }) => {
      this.stats = data.stats;
      this.#line = data.peak;
      this.ears.level(this.#mic, this.#line);
    };
    this.earpiece.connect(this.analyser).connect(this.context.destination);
    this.context.onstatechange = () => { if (!this.#closed && this.context.state !== 'running') this.ears.happened('asleep'); };
  }

  /** Open the microphone. @param {import('/client/lib/microphone.js').Processing} processing @throws {DOMException} as getUserMedia */
  async speak(processing) {
    if (!navigator.mediaDevices) throw new TypeError('no mediaDevices: not a secure page');
    await this.microphone.open('', processing);
    // Hung up while the browser was still asking.
    if (this.#closed) await this.microphone.close();
  }

  /** @param {Int16Array} pcm @param {number} peak @param {number} raw */
  #sound(pcm, peak, raw) {
    if (this.#closed) return;
    this.#mic = Math.max(peak, this.#mic * 0.5);
    this.ears.say(encode(pcm));
    const wasSilent = this.#silentPieces >= SILENT_PIECES;
    this.#silentPieces = raw < SILENCE ? this.#silentPieces + 1 : 0;
    if (this.#silentPieces === SILENT_PIECES) this.ears.happened('silent');
    if (wasSilent && !this.#silentPieces) this.ears.happened('heard');
  }

  /** Let the person hear a piece of the line. @param {ArrayBuffer} audio mu-law; handed over, not copied */
  hear(audio) { this.earpiece?.port.postMessage({ audio: new Uint8Array(audio) }, [audio]); }

  /** Forget what was not heard yet. */
  forget() { this.earpiece?.port.postMessage({ flush: true }); }

  /** @param {boolean} muted */
  mute(muted) { this.microphone.mute(muted); }

  /** Bring back sound that the device paused; call it from a tap. */
  wake() { if (!this.#closed && this.context.state !== 'running') void this.context.resume(); }

  /** Put it down: the browser's recording light goes out. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    this.ears.level(0, 0);
    await this.microphone.close();
    await this.context.close();
  }
}
