// @ts-check
/**
 * The sounds a telephone makes by itself: keys and ringing. They are heard here only; on the line a key is a message.
 *
 * Source: ITU-T Q.23 (two tones a key), and the ringing of North America, where the demo's numbers are from:
 * 440 and 480 Hz, 2 s on, 4 s off.
 */
const ROWS = [697, 770, 852, 941];
const COLUMNS = [1209, 1336, 1477];
const KEYS = '123456789*0#';
const KEY_S = 0.12;
/** Well below speech: it says that the key was taken. */
const KEY_LEVEL = 0.04;
const RING_LEVEL = 0.03;
const RING_EVERY_S = 6;
const RING_S = 2;
/** A call that is answered sooner than this does not ring. */
const RING_AFTER_S = 0.4;
/** A context that nobody uses costs a thread. */
const REST_MS = 3000;

export class Tones {
  /** @type {AudioContext | undefined} */ #context;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #rest;
  /** @type {GainNode | undefined} */ #ringing;

  /** Inside a gesture. */
  #wake() {
    const context = this.#context ??= new AudioContext();
    clearTimeout(this.#rest);
    void context.resume();
    return context;
  }

  #restSoon() {
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => { if (!this.#ringing) void this.#context?.suspend(); }, REST_MS);
  }

  /** @param {AudioContext} context @param {AudioNode} to @param {number} hz @param {number} from @param {number} seconds */
  #sound(context, to, hz, from, seconds) {
    const tone = new OscillatorNode(context, { frequency: hz });
    tone.connect(to);
    tone.start(from);
    tone.stop(from + seconds);
  }

  /** @param {string} key one of the twelve */
  key(key) {
    const place = KEYS.indexOf(key);
    if (place < 0) return;
    const context = this.#wake();
    const now = context.currentTime;
    const level = new GainNode(context, { gain: 0 });
    level.gain.setTargetAtTime(KEY_LEVEL, now, 0.004);
    level.gain.setTargetAtTime(0, now + KEY_S - 0.02, 0.005);
    level.connect(context.destination);
    for (const hz of [ROWS[Math.floor(place / 3)], COLUMNS[place % 3]]) this.#sound(context, level, hz, now, KEY_S);
    this.#restSoon();
  }

  /** Ring until told otherwise; one minute at most. @param {boolean} on */
  ring(on) {
    if (!on) {
      this.#ringing?.disconnect();
      this.#ringing = undefined;
      this.#restSoon();
      return;
    }
    if (this.#ringing) return;
    const context = this.#wake();
    const level = this.#ringing = new GainNode(context, { gain: RING_LEVEL });
    level.connect(context.destination);
    for (let at = RING_AFTER_S; at < 60; at += RING_EVERY_S) {
      for (const hz of [440, 480]) this.#sound(context, level, hz, context.currentTime + at, RING_S);
    }
  }
}
