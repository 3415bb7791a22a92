// @ts-check
/**
 * The speaker: what the agent says, item by item.
 *
 * @typedef {{item: string, playedMs: number, receivedMs: number}} Cut how much of an item was played when it was cut
 *
 * @typedef {object} SpeakerEars
 * @property {(item: string) => void} started first sound of an item
 * @property {(item: string, last: boolean) => void} finished last sound of an item; `last`: nothing else is queued
 * @property {(stats: Record<string, number>, peak: number) => void} report about 17 times a second
 */

/** The audio thread answers within a block or two; a context that never ran does not answer at all. */
const FLUSH_DEADLINE_MS = 200;

export class Speaker {
  #queued = 0;
  #drained = () => {};
  #cut = (/** @type {Cut[]} */ _cuts) => {};

  /** @param {AudioContext} context @param {SpeakerEars} ears */
  constructor(context, ears) {
    this.context = context;
    this.ears = ears;
    /** What is being played, for drawing it. */
    this.analyser = new AnalyserNode(context, { fftSize: 4096 });
    /** @type {AudioWorkletNode | undefined} */
    this.node = undefined;
  }

  /** @param {string} worklet URL of playback-worklet.js @throws {DOMException} if it cannot be loaded */
  async open(worklet) {
    await this.context.audioWorklet.addModule(worklet);
    this.node = new AudioWorkletNode(this.context, 'voice-playback', { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.#hear(data);
    this.node.connect(this.analyser).connect(this.context.destination);
  }

  /** @param {any} data */
  #hear(data) {
    if (data.started) this.ears.started(data.started);
    else if (data.finished) this.ears.finished(data.finished, data.last);
    else if (data.flushed) this.#cut(this.#asHeard(data.flushed));
    else if (data.stats) {
      this.#queued = data.stats.queuedMs;
      this.ears.report(data.stats, data.peak);
      if (!this.#queued) this.#drained();
    }
  }

  /**
   * Played is not yet heard: what the device still holds is taken off, so that a truncate never claims too much.
   * @param {Cut[]} cuts
   */
  #asHeard(cuts) {
    const late = Math.round((this.context.outputLatency || 0) * 1000);
    return cuts.map((cut) => ({ ...cut, playedMs: Math.min(Math.max(0, cut.playedMs - late), cut.receivedMs) }));
  }

  /** @param {string} item @param {Int16Array} pcm 24 kHz mono; handed over, not copied */
  play(item, pcm) { this.node?.port.postMessage({ item, pcm }, [pcm.buffer]); }

  /** No more sound will come for this item. @param {string} item */
  end(item) { this.node?.port.postMessage({ end: item }); }

  /** Fall silent within 5 ms. @returns {Promise<Cut[]>} the items that had sound left unplayed */
  flush() {
    return new Promise((resolve) => {
      this.#cut = resolve;
      setTimeout(resolve, FLUSH_DEADLINE_MS, []);
      this.node?.port.postMessage({ flush: true });
    });
  }

  /** Choose the output. @param {string} deviceId @returns {Promise<boolean>} false where browsers cannot */
  async use(deviceId) {
    const context = /** @type {AudioContext & {setSinkId?: (id: string) => Promise<void>}} */ (this.context);
    if (!context.setSinkId) return false;
    await context.setSinkId(deviceId);
    return true;
  }

  /** Settles when everything queued was played, at the latest a second after that should be so. @returns {Promise<void>} */
  played() {
    if (!this.#queued) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained = resolve;
      // A paused context reports nothing, so the wait needs an end of its own.
      setTimeout(resolve, this.#queued + 1000);
    });
  }
}
