// @ts-check
/**
 * The same sound at another rate, sample by sample, in the audio thread; used by both worklets of the telephone.
 *
 * A windowed sinc. With 24 lobes a side it passes up to 3.1 kHz and stops from 4.1 kHz at the line's 8 kHz, which is
 * what telephones do (300 to 3,400 Hz) and keeps what would fold back out of the line.
 */
const LOBES = 24;
/** Points of the table between two input samples: a multiple of 6, so that 8 and 48 kHz meet at points, not between. */
const PHASES = 192;

export class Resampler {
  #line = new Float32Array(4096);
  #have = 0;
  #at = 0;

  /** @param {number} fromHz @param {number} toHz @param {(sample: number) => void} out is given every sample */
  constructor(fromHz, toHz, out) {
    this.out = out;
    this.ratio = fromHz / toHz;
    this.half = Math.ceil(LOBES * Math.max(1, this.ratio));
    this.taps = this.#filter();
    this.reset();
  }

  /** Forget what came before; the next sample follows silence. */
  reset() {
    this.#line.fill(0, 0, this.half);
    this.#have = this.half;
    this.#at = this.half;
  }

  /** Blackman-windowed sinc, cut at 0.45 of the lower of the two rates. */
  #filter() {
    const { half, ratio } = this;
    const cut = 0.9 / Math.max(1, ratio);
    const taps = new Float32Array(2 * half * PHASES + 1);
    for (let i = 0; i < taps.length; i++) {
      const x = i / PHASES - half;
      const window = 0.42 + 0.5 * Math.cos(Math.PI * x / half) + 0.08 * Math.cos(2 * Math.PI * x / half);
      const angle = Math.PI * cut * x;
      taps[i] = window * cut * (angle === 0 ? 1 : Math.sin(angle) / angle);
    }
    return taps;
  }

  /** @param {Float32Array} input the next samples at the first rate */
  push(input) {
    const { half, taps, ratio } = this;
    const need = this.#have + input.length;
    if (need > this.#line.length) {
      const longer = new Float32Array(need * 2);
      longer.set(this.#line.subarray(0, this.#have));
      this.#line = longer;
    }
    const line = this.#line;
    line.set(input, this.#have);
    this.#have = need;
    while (this.#at + half < need) {
      const base = Math.floor(this.#at);
      const part = this.#at - base;
      let sum = 0;
      for (let k = 1 - half; k <= half; k++) sum += line[base + k] * taps[Math.round((k - part + half) * PHASES)];
      this.out(sum);
      this.#at += ratio;
    }
    const done = Math.max(0, Math.floor(this.#at) - half);
    line.copyWithin(0, done, need);
    this.#have -= done;
    this.#at -= done;
  }
}
