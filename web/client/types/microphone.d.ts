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
export type Processing = {
    echoCancellation?: boolean;
    noiseSuppression?: boolean;
    autoGainControl?: boolean;
};
export type MicrophoneEars = {
    /**
     * 40 ms pieces; peaks 0..1, `raw` before muting
     */
    sound: (pcm: Int16Array, peak: number, raw: number) => void;
    happened: (what: 'prompt' | 'lost' | 'paused' | 'back') => void;
};
export declare class Microphone {
    #private;
    context: AudioContext;
    worklet: string;
    ears: MicrophoneEars;
    /** @type {MediaStream | undefined} */
    stream: MediaStream | undefined;
    /** @type {MediaStreamAudioSourceNode | undefined} */
    source: MediaStreamAudioSourceNode | undefined;
    /** @type {AudioWorkletNode | undefined} */
    node: AudioWorkletNode | undefined;
    /** Only where the browser refuses to join two rates. @type {AudioContext | undefined} */
    ownContext: AudioContext | undefined;
    /**
     * @param {AudioContext} context the one the speaker plays in: echo cancellation works best within one context
     * @param {string} worklet URL of capture-worklet.js
     * @param {MicrophoneEars} ears
     */
    constructor(context: AudioContext, worklet: string, ears: MicrophoneEars);
    /**
     * Open a microphone; the one opened before is closed when the new one works.
     *
     * @param {string} deviceId empty for the system's default
     * @param {Processing} processing
     * @throws {DOMException} what getUserMedia threw; the earlier microphone then stays open
     */
    open(deviceId: string, processing: Processing): Promise<void>;
    /** Muted: zeros are sent, the stream goes on. @param {boolean} muted */
    mute(muted: boolean): void;
    /** The device in use, or empty. */
    get deviceId(): string;
    /** Close it; the browser's recording light goes out. */
    close(): Promise<void>;
}
