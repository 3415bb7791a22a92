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
export type Cut = {
    item: string;
    playedMs: number;
    receivedMs: number;
};
export type SpeakerEars = {
    /**
     * first sound of an item
     */
    started: (item: string) => void;
    /**
     * last sound of an item; `last`: nothing else is queued
     */
    finished: (item: string, last: boolean) => void;
    /**
     * about 17 times a second
     */
    report: (stats: Record<string, number>, peak: number) => void;
};
export declare class Speaker {
    #private;
    context: AudioContext;
    ears: SpeakerEars;
    /** What is being played, for drawing it. */
    analyser: AnalyserNode;
    /** @type {AudioWorkletNode | undefined} */
    node: AudioWorkletNode | undefined;
    /** @param {AudioContext} context @param {SpeakerEars} ears */
    constructor(context: AudioContext, ears: SpeakerEars);
    /** @param {string} worklet URL of playback-worklet.js @throws {DOMException} if it cannot be loaded */
    open(worklet: string): Promise<void>;
    /** @param {string} item @param {Int16Array} pcm 24 kHz mono; handed over, not copied */
    play(item: string, pcm: Int16Array): void;
    /** No more sound will come for this item. @param {string} item */
    end(item: string): void;
    /** Fall silent within 5 ms. @returns {Promise<Cut[]>} the items that had sound left unplayed */
    flush(): Promise<Cut[]>;
    /** Choose the output. @param {string} deviceId @returns {Promise<boolean>} false where browsers cannot */
    use(deviceId: string): Promise<boolean>;
    /** Settles when everything queued was played, at the latest a second after that should be so. @returns {Promise<void>} */
    played(): Promise<void>;
}
