// @ts-check
/**
 * Microphone to the line's 8 kHz, in the audio thread; runs under the name the library's Microphone asks for.
 *
 * In: {muted: boolean}. Out, every 20 ms: {pcm: Int16Array of 160, peak: 0..1 of what is sent, raw: 0..1 before muting}.
 */
import { FRAME, LINE_RATE_HZ } from './g711.js';
import { Resampler } from './resampler.js';

class Mouthpiece extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(FRAME);
    this.fill = 0;
    this.muted = false;
    this.peak = 0;
    this.raw = 0;
    this.resampler = new Resampler(sampleRate, LINE_RATE_HZ, (sample) => this.push(sample));
    this.port.onmessage = ({ data }) => { if ('muted' in data) this.muted = data.muted; };
  }

  /** @param {number} sample */
  push(sample) {
    const clipped = Math.max(-1, Math.min(1, sample));
    const value = this.muted ? 0 : clipped;
    this.raw = Math.max(this.raw, Math.abs(clipped));
    this.peak = Math.max(this.peak, Math.abs(value));
    this.frame[this.fill++] = value * 32767;
    if (this.fill < FRAME) return;
    const pcm = this.frame.slice();
    this.port.postMessage({ pcm, peak: this.peak, raw: this.raw }, [pcm.buffer]);
    this.fill = this.peak = this.raw = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const input = inputs[0]?.[0];
    if (input) this.resampler.push(input);
    return true;
  }
}

registerProcessor('voice-capture', Mouthpiece);
