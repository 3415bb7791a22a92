// @ts-check
/**
 * 24 kHz PCM16 to the speaker, at whatever rate the device runs.
 *
 * The context keeps the device's own rate because some browsers cancel no echo from a context at another rate.
 * The ring grows: the Realtime API sends much faster than real time, a fixed ring of seconds would drop speech.
 * Sound is kept by item, because a second item may arrive while the first is still playing and a cut must say,
 * for each, how much of it was played.
 *
 * In:  {pcm: Int16Array, item: string} | {end: string} | {flush: true}.
 * Out: {started: item} | {finished: item, last: boolean} | {flushed: [{item, playedMs, receivedMs}]} | {stats: {...}}.
 */
const IN_RATE_HZ = 24000;
const SAMPLES_PER_MS = IN_RATE_HZ / 1000;
/** 16-tap windowed sinc, 256 phases: aliasing stays below what 16-bit speech can show. */
const HALF = 8;
const PHASES = 256;
/** 5 ms fade on a flush: a hard cut clicks. */
const RAMP = IN_RATE_HZ / 200;
/** 60 ms wait before an item starts: covers ordinary network jitter. */
const PREBUFFER = IN_RATE_HZ * 0.06;
/** 5 minutes (29 MB). 4,096 output tokens are about 205 s of speech; what is beyond the bound is dropped and counted. */
const LONGEST = IN_RATE_HZ * 300;
/** One report every 20 blocks of 128 samples: about 17 a second, enough for a meter. */
const BLOCKS_PER_REPORT = 20;

/** @typedef {{item: string | null, received: number, played: number, ended: boolean}} Segment */

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Float32Array(IN_RATE_HZ * 8);
    this.read = 0;
    this.count = 0;
    /** Played samples still in the ring before `read`: the filter's history. */
    this.past = 0;
    this.part = 0;
    this.step = IN_RATE_HZ / sampleRate;
    this.running = false;
    this.fading = false;
    /** @type {Segment[]} */
    this.segments = [];
    this.total = { played: 0, audible: 0, underruns: 0, overflow: 0 };
    this.block = 0;
    this.peak = 0;
    this.taps = new Float32Array(2 * HALF * PHASES + 1);
    for (let i = 0; i < this.taps.length; i++) {
      const x = i / PHASES - HALF;
      const angle = Math.PI * x;
      this.taps[i] = (0.54 + 0.46 * Math.cos(angle / HALF)) * (angle === 0 ? 1 : Math.sin(angle) / angle);
    }
    this.port.onmessage = ({ data }) => this.onMessage(data);
  }

  /** @param {any} message */
  onMessage(message) {
    if (message.pcm) this.add(message.item, message.pcm);
    else if (message.end) this.end(message.end);
    else if (message.flush) this.flush();
  }

  /** @param {string} item @param {Int16Array} pcm */
  add(item, pcm) {
    if (this.fading) this.drop();
    if (this.count + pcm.length > LONGEST) { this.total.overflow += pcm.length; return; }
    let last = this.segments[this.segments.length - 1];
    if (!last || last.item !== item) this.segments.push(last = { item, received: 0, played: 0, ended: false });
    last.received += pcm.length;
    this.write(pcm);
  }

  /** @param {string} item */
  end(item) {
    const segment = this.segments.find((one) => one.item === item);
    if (!segment) return;
    segment.ended = true;
    this.advance();
  }

  flush() {
    const cut = this.segments.filter((one) => one.item !== null && one.received > one.played);
    this.port.postMessage({ flushed: cut.map((one) => ({ item: one.item, playedMs: Math.floor(one.played / SAMPLES_PER_MS),
      receivedMs: Math.floor(one.received / SAMPLES_PER_MS) })) });
    this.fading = this.running && this.count > 0;
    if (!this.fading) { this.drop(); return; }
    this.count = Math.min(this.count, RAMP);
    this.segments = [{ item: null, received: this.count, played: 0, ended: true }];
  }

  drop() {
    this.count = this.past = this.part = 0;
    this.segments = [];
    this.running = this.fading = false;
  }

  /** @param {Int16Array} pcm */
  write(pcm) {
    const length = this.ring.length;
    if (this.count + pcm.length + 2 * HALF > length) {
      const bigger = new Float32Array(Math.max(length * 2, this.count + pcm.length + 2 * HALF));
      for (let i = -this.past; i < this.count; i++) bigger[i + this.past] = this.ring[(this.read + i + length) % length];
      this.ring = bigger;
      this.read = this.past;
    }
    let to = (this.read + this.count) % this.ring.length;
    for (let i = 0; i < pcm.length; i++) {
      this.ring[to] = pcm[i] / 32768;
      if (++to === this.ring.length) to = 0;
    }
    this.count += pcm.length;
  }

  /** Drop segments that are over, telling the page of each. */
  advance() {
    for (let head = this.segments[0]; head && head.played >= head.received; head = this.segments[0]) {
      if (!head.ended && this.segments.length === 1) return;
      this.segments.shift();
      if (head.item !== null) this.port.postMessage({ finished: head.item, last: this.segments.length === 0 });
    }
  }

  /** The output sample between ring positions `read` and `read + 1`. */
  sample() {
    const { ring, read } = this;
    if (this.step === 1) return ring[read];
    const length = ring.length;
    const from = Math.max(1 - HALF, -this.past);
    const to = Math.min(HALF, this.count - 1);
    let sum = 0;
    for (let k = from; k <= to; k++) sum += ring[(read + k + length) % length] * this.taps[Math.round((k - this.part + HALF) * PHASES)];
    return sum;
  }

  /** One input sample is played. @param {boolean} audible */
  consume(audible) {
    if (++this.read === this.ring.length) this.read = 0;
    this.count--;
    if (this.past < HALF) this.past++;
    const head = this.segments[0];
    if (head.item !== null) {
      if (head.played === 0) this.port.postMessage({ started: head.item });
      this.total.played++;
      if (audible) this.total.audible++;
    }
    if (++head.played === head.received) this.advance();
  }

  /** @param {Float32Array} out */
  fillBlock(out) {
    let i = 0;
    for (; i < out.length && this.count > this.reserve(); i++) {
      const value = this.fading ? this.sample() * this.count / RAMP : this.sample();
      out[i] = value;
      const loud = Math.abs(value);
      this.peak = Math.max(this.peak, loud);
      for (this.part += this.step; this.part >= 1 && this.count > 0; this.part--) this.consume(loud > 1e-4);
    }
    if (i === out.length) return;
    if (this.segments.length) { this.running = false; this.total.underruns++; } else this.drop();
  }

  /** Samples the filter must still see ahead of it; none when no more will come. */
  reserve() {
    const last = this.segments[this.segments.length - 1];
    return this.step === 1 || !last || last.ended ? 0 : HALF;
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    const [out, ...others] = outputs[0];
    const last = this.segments[this.segments.length - 1];
    if (!this.running && this.count > 0 && (this.count >= PREBUFFER || last?.ended)) this.running = true;
    if (this.running) this.fillBlock(out);
    for (const other of others) other.set(out);
    if (++this.block % BLOCKS_PER_REPORT === 0) {
      this.port.postMessage({ stats: { ...this.total, queuedMs: Math.round(this.count / SAMPLES_PER_MS) }, peak: this.peak });
      this.peak = 0;
    }
    return true;
  }
}

registerProcessor('voice-playback', Playback);

// A module of its own for the type checker; nothing imports it.
export {};
