// @ts-check
/**
 * Microphone to 24 kHz mono PCM16, in the audio thread.
 *
 * In: {muted: boolean}. Out, every 40 ms: {pcm: Int16Array, peak: 0..1 of what is sent, raw: 0..1 before muting}.
 * Muted means zeros, not a stopped stream: the server's turn detection needs to hear silence to close a turn.
 */
const OUT_RATE_HZ = 24000;
/** Realtime API guidance: 20 to 100 ms pieces; 40 ms keeps the message rate at 25 a second. */
const CHUNK_SAMPLES = OUT_RATE_HZ / 25;
/** Points of the filter's table between two input samples. */
const PHASES = 32;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(CHUNK_SAMPLES);
    this.fill = 0;
    this.muted = false;
    this.peak = 0;
    this.raw = 0;
    this.ratio = sampleRate / OUT_RATE_HZ;
    this.half = Math.ceil(16 * Math.max(1, this.ratio));
    this.taps = this.makeFilter();
    this.line = new Float32Array(2 * this.half + 128);
    this.have = 0;
    this.at = this.half;
    this.port.onmessage = ({ data }) => { if ('muted' in data) this.muted = data.muted; };
  }

  /** Blackman-windowed sinc, cut at 0.45 of the lower of the two rates so that nothing folds back. */
  makeFilter() {
    const { half } = this;
    const cut = 0.9 / Math.max(1, this.ratio);
    const taps = new Float32Array(2 * half * PHASES + 1);
    for (let i = 0; i < taps.length; i++) {
      const x = i / PHASES - half;
      const window = 0.42 + 0.5 * Math.cos(Math.PI * x / half) + 0.08 * Math.cos(2 * Math.PI * x / half);
      const angle = Math.PI * cut * x;
      taps[i] = window * cut * (angle === 0 ? 1 : Math.sin(angle) / angle);
    }
    return taps;
  }

  /** @param {Float32Array} input */
  resample(input) {
    const { half, taps, ratio } = this;
    const need = this.have + input.length;
    if (need > this.line.length) {
      const longer = new Float32Array(need * 2);
      longer.set(this.line.subarray(0, this.have));
      this.line = longer;
    }
    this.line.set(input, this.have);
    this.have = need;
    while (this.at + half < this.have) {
      const base = Math.floor(this.at);
      const part = this.at - base;
      let sum = 0;
      for (let k = 1 - half; k <= half; k++) sum += this.line[base + k] * taps[Math.round((k - part + half) * PHASES)];
      this.push(sum);
      this.at += ratio;
    }
    const done = Math.max(0, Math.floor(this.at) - half);
    this.line.copyWithin(0, done, this.have);
    this.have -= done;
    this.at -= done;
  }

  /** @param {number} x */
  push(x) {
    const clipped = Math.max(-1, Math.min(1, x));
    const value = this.muted ? 0 : clipped;
    this.raw = Math.max(this.raw, Math.abs(clipped));
    this.peak = Math.max(this.peak, Math.abs(value));
    this.chunk[this.fill++] = value < 0 ? value * 32768 : value * 32767;
    if (this.fill < CHUNK_SAMPLES) return;
    const pcm = this.chunk.slice();
    this.port.postMessage({ pcm, peak: this.peak, raw: this.raw }, [pcm.buffer]);
    this.fill = this.peak = this.raw = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const input = inputs[0]?.[0];
    if (!input) return true;
    if (this.ratio === 1) for (const x of input) this.push(x); else this.resample(input);
    return true;
  }
}

registerProcessor('voice-capture', Capture);

// A module of its own for the type checker; nothing imports it.
export {};
