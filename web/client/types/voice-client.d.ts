export type VoiceOptions = {
    /**
     * gateway address; ws, wss, http, https or relative to the page
     */
    url: string;
    /**
     * asked before every connection and when the token runs out, so tokens may be short-lived
     */
    token: () => (string | Promise<string>);
    agentId: string;
    /**
     * resumes a conversation of this user
     */
    conversationId?: string;
    /**
     * default: the agent's own
     */
    voice?: string;
    /**
     * how the token travels; `subprotocol` keeps it out of access logs. Default `query`
     */
    tokenIn?: 'query' | 'subprotocol';
    /**
     * browser sound processing, all on by default
     */
    processing?: import('./microphone.js').Processing;
    /**
     * where the worklet files are; default: beside this file
     */
    worklets?: {
        capture: string | URL;
        playback: string | URL;
    };
    /**
     * further query parameters
     */
    query?: Record<string, string>;
};
export type VoiceState = 'idle' | 'connecting' | 'live' | 'reconnecting' | 'ended';
export type Activity = import('./conversation.js').Activity;
export type Caption = import('./captions.js').Caption;
export type Problem = import('./words.js').Problem;
export type Notice = {
    code: string;
    message: string;
    detail: string;
    retryInMs: number;
};
export type VoiceEventMap = {
    state: CustomEvent<{
        state: VoiceState;
        reason: string;
        retryInMs: number;
        attempt: number;
    }>;
    activity: CustomEvent<{
        activity: Activity;
    }>;
    caption: CustomEvent<Caption>;
    /**
     * peaks 0..1, 17 to 40 times a second
     */
    level: CustomEvent<{
        mic: number;
        agent: number;
    }>;
    /**
     * end of your turn to the first sound of the answer, by the page's clock
     */
    latency: CustomEvent<{
        ms: number;
    }>;
    problem: CustomEvent<Problem>;
    notice: CustomEvent<Notice>;
    /**
     * every event on the wire, unchanged
     */
    event: CustomEvent<{
        direction: 'received' | 'sent';
        event: Record<string, any>;
    }>;
};
export declare class VoiceClient extends EventTarget {
    #private;
    options: VoiceOptions;
    /** Set by the server; kept over reconnections and stop(), so that start() goes on with it. Empty it to begin anew. */
    conversationId: string;
    /** Pieces of 40 ms; `played` and `audible` in samples at 24 kHz of this connection. */
    stats: {
        sentPieces: number;
        droppedPieces: number;
        played: number;
        audible: number;
        queuedMs: number;
        underruns: number;
        overflow: number;
        reconnects: number;
    };
    /** @param {VoiceOptions} options may be changed between conversations */
    constructor(options: VoiceOptions);
    get state(): VoiceState;
    get activity(): import("./conversation.js").Activity;
    get muted(): boolean;
    get pushToTalk(): boolean;
    get holding(): boolean;
    get hasMicrophone(): boolean;
    /** The agent's sound, for drawing it; null unless connected. */
    get analyser(): AnalyserNode | null;
    /** How often the agent was interrupted in this page. */
    get cuts(): number;
    /**
     * Listen to an event, with its type known.
     *
     * @template {keyof VoiceEventMap} K
     * @param {K} name
     * @param {(event: VoiceEventMap[K]) => void} listener
     * @returns {() => void} call it to stop listening
     */
    on<K extends keyof VoiceEventMap>(name: K, listener: (event: VoiceEventMap[K]) => void): () => void;
    /**
     * Talk. Call it from a click or key handler: browsers open sound only on a gesture.
     * In a conversation without a microphone it opens one.
     *
     * @param {{deviceId?: string}} [microphone]
     * @returns {Promise<boolean>} true once live; false if that was not possible (a `problem` says why) or stop() came first
     */
    start({ deviceId }?: {
        deviceId?: string;
    }): Promise<boolean>;
    /**
     * Connect with no microphone: typing works and answers are heard. Call it from a click or key handler.
     *
     * @returns {Promise<boolean>} as start()
     */
    startText(): Promise<boolean>;
    /** End the conversation; start() can go on with it. @param {string} [reason] told in the `state` event */
    stop(reason?: string): Promise<void>;
    /** Give the live session a new token; the gateway asks for it with the notice `token_expiring`. */
    refreshToken(): Promise<void>;
    /** Send any event of the protocol. @param {Record<string, any>} event @returns {boolean} false if not connected or stalled */
    send(event: Record<string, any>): boolean;
    /**
     * Say something in writing; the agent stops and answers it. While connecting, the text waits.
     *
     * @param {string} text
     * @returns {boolean} false if it is empty or there is no conversation: start one first
     */
    say(text: string): boolean;
    /** Stop the agent's answer, spoken or still being made. */
    interrupt(): void;
    /** Muted: silence is sent, the connection stays. @param {boolean} muted */
    setMuted(muted: boolean): void;
    /** Switch push to talk; on: nothing is sent unless hold(true), and hold(false) ends the turn. @param {boolean} on */
    setPushToTalk(on: boolean): void;
    /** The push-to-talk button went down or up. @param {boolean} down */
    hold(down: boolean): void;
    /** Another voice. A session cannot change it once it spoke, so a live one is opened anew, with its conversation. @param {string} voice */
    setVoice(voice: string): void;
    /** Use another microphone, or open one in a conversation without. @param {string} deviceId empty: default @returns {Promise<boolean>} */
    setMicrophone(deviceId: string): Promise<boolean>;
    /** Use another speaker. @param {string} deviceId empty: default @returns {Promise<boolean>} false where browsers cannot */
    setSpeaker(deviceId: string): Promise<boolean>;
    /** Bring back sound that the device paused; call it from a tap. @returns {Promise<boolean>} sound is running */
    resumeSound(): Promise<boolean>;
    /** Do not wait for the rest of the back-off. */
    retryNow(): void;
}
