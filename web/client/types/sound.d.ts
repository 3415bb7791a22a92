export type SoundEars = {
    /**
     * 40 ms of the microphone
     */
    piece: (pcm: Int16Array) => void;
    /**
     * peaks 0..1
     */
    level: (mic: number, agent: number) => void;
    started: (item: string) => void;
    finished: (item: string, last: boolean) => void;
    stats: (stats: Record<string, number>) => void;
    notice: (code: 'muted_speaking' | 'mic_silent' | 'mic_prompt' | 'mic_back') => void;
    problem: (code: 'paused' | 'mic_lost' | 'mic_paused') => void;
};
/**
 * Both directions of sound in one AudioContext at the device's own rate.
 *
 * One context, and not at 24 kHz: some browsers cancel no echo between contexts of different rates, and an agent that
 * hears itself interrupts itself. The worklets resample.
 *
 * @typedef {object} SoundEars
 * @property {(pcm: Int16Array) => void} piece 40 ms of the microphone
 * @property {(mic: number, agent: number) => void} level peaks 0..1
 * @property {(item: string) => void} started
 * @property {(item: string, last: boolean) => void} finished
 * @property {(stats: Record<string, number>) => void} stats
 * @property {(code: 'muted_speaking' | 'mic_silent' | 'mic_prompt' | 'mic_back') => void} notice
 * @property {(code: 'paused' | 'mic_lost' | 'mic_paused') => void} problem
 */
import { Microphone } from './microphone.js';
import { Speaker } from './speaker.js';
export declare class Sound {
    #private;
    ears: SoundEars;
    capture: string;
    playback: string;
    context: AudioContext;
    resumed: Promise<void>;
    microphone: Microphone;
    speaker: Speaker;
    /**
     * Make it inside the user's gesture.
     *
     * @param {{worklets?: {capture: string | URL, playback: string | URL}}} options
     * @param {SoundEars} ears
     * @param {{talking: boolean}} how talking: a microphone will be opened
     */
    constructor({ worklets }: {
        worklets?: {
            capture: string | URL;
            playback: string | URL;
        };
    }, ears: SoundEars, { talking }: {
        talking: boolean;
    });
    get hasMicrophone(): boolean;
    get analyser(): AnalyserNode;
    /** @returns {Promise<boolean>} false if there is no sound output (captions still work) @throws {DOMException} no worklet */
    openSpeaker(): Promise<boolean>;
    /** @param {string} deviceId @param {import('./microphone.js').Processing} processing @throws {DOMException} as getUserMedia */
    openMicrophone(deviceId: string, processing: import('./microphone.js').Processing): Promise<void>;
    /** @param {boolean} muted */
    mute(muted: boolean): void;
    /** Bring back sound that the device paused; call it from a tap. @returns {Promise<boolean>} */
    resume(): Promise<boolean>;
    /** @param {{after?: boolean}} [how] after: what is queued for the speaker is played first */
    close({ after }?: {
        after?: boolean;
    }): Promise<void>;
}
