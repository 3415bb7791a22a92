// @ts-check
/**
 * The line's 8 kHz mu-law to the speaker, at whatever rate the device runs.
 *
 * The line gives 20 ms every 20 ms by its own clock. Sound that came late is not played later for the rest of the
 * call: silent pieces are left out until the delay is short again, and a long delay is cut.
 *
 * In:  {audio: Uint8Array} | {flush: true}. Out, about 20 times a second: {peak, stats: {queuedMs, played, gaps, dropped}}.
 */
import { decode, LINE_RATE_HZ } from './g711.js';
import { Resampler } from './resampler.js';

/** Kept before playing begins: four pieces, since a busy page gets them in twos and threes. */
const START_S = 0.08;
/** Above this, silent pieces are left out. */
const LONG_S = 0.16;
/** Above this, the oldest sound is dropped. */
const LONGEST_S = 0.4;
/** A fade of 5 ms where sound is cut: a hard cut clicks. */
const RAMP_S = 0.005;
/** Mu-law silence is exactly 0; line noise of up to two steps counts as silence too. */
const HUSH = 0.001;
const BLOCKS_PER_REPORT = 18;

class Earpiece extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Float32Array(Math.ceil(sampleRate * (LONGEST_S + 1)));
    this.read = 0;
    this.count = 0;
    this.running = false;
    this.loud = false;
    this.peak = 0;
    this.block = 0;
    this.stats = { queuedMs: 0, played: 0, gaps: 0, dropped: 0 };
    this.resampler = new Resampler(LINE_RATE_HZ, sampleRate, (sample) => this.write(sample));
    this.port.onmessage = ({ data }) => { if (data.flush) this.flush(); else this.add(decode(data.audio)); };
  }

  /** @param {number} sample */
  write(sample) {
    if (this.count === this.ring.length) return;
    this.ring[(this.read + this.count++) % this.ring.length] = sample;
  }

  /** @param {Float32Array} samples */
  add(samples) {
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
    if (this.count > LONG_S * sampleRate && peak < HUSH) { this.stats.dropped += samples.length; return; }
    this.resampler.push(samples);
    if (this.count <= LONGEST_S * sampleRate) return;
    const extra = this.count - Math.round(START_S * sampleRate);
    this.read = (this.read + extra) % this.ring.length;
    this.count -= extra;
    this.stats.dropped += Math.round(extra * LINE_RATE_HZ / sampleRate);
  }

  /** Fall silent within 5 ms and forget the rest. */
  flush() {
    this.resampler.reset();
    const ramp = Math.min(this.count, Math.round(RAMP_S * sampleRate));
    this.count = this.running ? ramp : 0;
    for (let i = 0; i < this.count; i++) this.ring[(this.read + i) % this.ring.length] *= 1 - i / ramp;
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    const [out, ...others] = outputs[0];
    if (!this.running && this.count >= START_S * sampleRate) this.running = true;
    if (this.running) this.fill(out);
    for (const other of others) other.set(out);
    if (++this.block % BLOCKS_PER_REPORT === 0) {
      this.stats.queuedMs = Math.round(this.count * 1000 / sampleRate);
      this.port.postMessage({ peak: this.peak, stats: this.stats });
      this.peak = 0;
    }
    return true;
  }

  /** @param {Float32Array} out */
  fill(out) {
    const ready = Math.min(out.length, this.count);
    for (let i = 0; i < ready; i++) {
      const sample = this.ring[this.read];
      if (++this.read === this.ring.length) this.read = 0;
      out[i] = sample;
      this.loud = Math.abs(sample) >= HUSH;
      this.peak = Math.max(this.peak, Math.abs(sample));
    }
    this.count -= ready;
    this.stats.played += ready;
    if (ready === out.length) return;
    // Running dry in silence is what a dead line does; in the middle of a sound it is heard.
    if (this.loud) this.stats.gaps++;
    this.running = this.loud = false;
  }
}

registerProcessor('phone-earpiece', Earpiece);
