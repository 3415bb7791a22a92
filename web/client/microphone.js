// @ts-check
/**
 * The microphone: permission, processing, 24 kHz pieces, and what happens when it goes away.
 *
 * @typedef {object} Processing what the browser does to the sound before we get it; all on unless switched off
 * @property {boolean} [echoCancellation]
 * @property {boolean} [noiseSuppression]
 * @property {boolean} [autoGainControl]
 *
 * @typedef {object} MicrophoneEars
 * @property {(pcm: Int16Array, peak: number, raw: number) => void} sound 40 ms pieces; peaks 0..1, `raw` before muting
 * @property {(what: 'prompt' | 'lost' | 'paused' | 'back') => void} happened
 */

/** A permission question that is answered faster than this needs no sentence about it. */
const PROMPT_AFTER_MS = 1500;

export class Microphone {
  #muted = false;

  /**
   * @param {AudioContext} context the one the speaker plays in: echo cancellation works best within one context
   * @param {string} worklet URL of capture-worklet.js
   * @param {MicrophoneEars} ears
   */
  constructor(context, worklet, ears) {
    this.context = context;
    this.worklet = worklet;
    this.ears = ears;
    /** @type {MediaStream | undefined} */
    this.stream = undefined;
    /** @type {MediaStreamAudioSourceNode | undefined} */
    this.source = undefined;
    /** @type {AudioWorkletNode | undefined} */
    this.node = undefined;
    /** Only where the browser refuses to join two rates. @type {AudioContext | undefined} */
    this.ownContext = undefined;
  }

  /**
   * Open a microphone; the one opened before is closed when the new one works.
   *
   * @param {string} deviceId empty for the system's default
   * @param {Processing} processing
   * @throws {DOMException} what getUserMedia threw; the earlier microphone then stays open
   */
  async open(deviceId, processing) {
    const stream = await this.#ask(deviceId, processing);
    try {
      await this.#join(stream);
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
    const track = stream.getAudioTracks()[0];
    track.onended = () => { if (this.stream === stream) this.ears.happened('lost'); };
    track.onmute = () => { if (this.stream === stream) this.ears.happened('paused'); };
    track.onunmute = () => { if (this.stream === stream) this.ears.happened('back'); };
  }

  /** @param {string} deviceId @param {Processing} processing @returns {Promise<MediaStream>} */
  async #ask(deviceId, processing) {
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...processing };
    const prompt = setTimeout(() => this.ears.happened('prompt'), PROMPT_AFTER_MS);
    try {
      return await navigator.mediaDevices.getUserMedia({ audio: deviceId ? { ...audio, deviceId: { exact: deviceId } } : audio });
    } catch (error) {
      // The chosen device was unplugged since: the default one is better than none.
      if (deviceId && /** @type {Error} */ (error).name === 'OverconstrainedError') return await navigator.mediaDevices.getUserMedia({ audio });
      throw error;
    } finally {
      clearTimeout(prompt);
    }
  }

  /** @param {MediaStream} stream */
  async #join(stream) {
    let context = this.context;
    let source;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {
      // Browsers that refuse to join a microphone of another rate get a second context at the microphone's own rate.
      context = this.ownContext = new AudioContext();
      source = context.createMediaStreamSource(stream);
    }
    await context.audioWorklet.addModule(this.worklet);
    const node = new AudioWorkletNode(context, 'voice-capture', { numberOfOutputs: 0 });
    this.#leave();
    node.port.onmessage = ({ data }) => this.ears.sound(data.pcm, data.peak, data.raw);
    node.port.postMessage({ muted: this.#muted });
    source.connect(node);
    this.stream = stream;
    this.source = source;
    this.node = node;
  }

  /** Muted: zeros are sent, the stream goes on. @param {boolean} muted */
  mute(muted) {
    this.#muted = muted;
    this.node?.port.postMessage({ muted });
  }

  /** The device in use, or empty. */
  get deviceId() { return this.stream?.getAudioTracks()[0]?.getSettings().deviceId ?? ''; }

  #leave() {
    this.source?.disconnect();
    if (this.node) this.node.port.onmessage = null;
    const old = this.stream;
    this.stream = this.source = this.node = undefined;
    for (const track of old?.getTracks() ?? []) track.stop();
  }

  /** Close it; the browser's recording light goes out. */
  async close() {
    this.#leave();
    if (this.ownContext && this.ownContext.state !== 'closed') await this.ownContext.close();
    this.ownContext = undefined;
  }
}
