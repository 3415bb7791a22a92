/**
 * Push to talk: nothing is sent unless held, and letting go ends the turn.
 *
 * The server's own turn detection is switched off meanwhile, or it would answer in every pause while the button is
 * held and would wait for a silence that is never sent (Realtime API, manual turns: commit, then response.create).
 * Where the agent's owner does not leave that to clients, letting go sends the silence instead.
 *
 * @typedef {object} Duties
 * @property {(turnDetection: Record<string, any> | null) => void} setTurnDetection tell the server who ends turns
 * @property {() => void} pressed silence the agent and forget what the server has not used yet
 * @property {() => void} released commit the turn and ask for the answer
 * @property {(ms: number) => void} fellSilent send that much silence, so that the server's turn detection ends the turn
 * @property {() => void} tooShort forget the turn
 */
export type Duties = {
    /**
     * tell the server who ends turns
     */
    setTurnDetection: (turnDetection: Record<string, any> | null) => void;
    /**
     * silence the agent and forget what the server has not used yet
     */
    pressed: () => void;
    /**
     * commit the turn and ask for the answer
     */
    released: () => void;
    /**
     * send that much silence, so that the server's turn detection ends the turn
     */
    fellSilent: (ms: number) => void;
    /**
     * forget the turn
     */
    tooShort: () => void;
};
export declare class PushToTalk {
    #private;
    duties: Duties;
    /** Switched on. */
    on: boolean;
    /** The button is down. */
    holding: boolean;
    /** @param {Duties} duties */
    constructor(duties: Duties);
    /** The server may cut the agent off when it hears speech. */
    get serverInterrupts(): boolean;
    /** What the session says about turns; null is our own doing and is not remembered. @param {Record<string, any> | null | undefined} turns */
    told(turns: Record<string, any> | null | undefined): void;
    /** @param {boolean} on */
    set(on: boolean): void;
    /** The server keeps its own turn detection. */
    refused(): void;
    /** A new session knows nothing of what the last one was told. */
    renew(): void;
    /** @param {boolean} down */
    hold(down: boolean): void;
    /** Whether a piece of sound is to be sent. */
    passes(): boolean;
    /** End a turn in progress at once; used when push to talk or the conversation ends. */
    letGo(): void;
}
