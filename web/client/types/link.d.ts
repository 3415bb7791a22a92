export type Problem = import('./words.js').Problem;
export type LinkEars = {
    /**
     * asked before every connection
     */
    address: () => Promise<{
        url: URL;
        protocols: string[];
    }>;
    /**
     * the socket is open; the server has not spoken yet
     */
    opened: () => void;
    received: (event: Record<string, any>) => void;
    /**
     * a retry is due in retryInMs
     */
    waiting: (wait: {
        retryInMs: number;
        attempt: number;
        why: Problem;
    }) => void;
    /**
     * no retry will follow
     */
    ended: (why: Problem & {
        next: import('./words.js').Next;
    }) => void;
};
export declare class Link {
    #private;
    ears: LinkEars;
    /** @param {LinkEars} ears */
    constructor(ears: LinkEars);
    /** The socket is open and may be written to. */
    get isOpen(): boolean;
    /** Connect, or connect anew; an earlier socket is closed first. */
    open(): Promise<void>;
    /** The server took the session: tell the link, so that it stops counting failures. */
    answered(): void;
    /** Do not wait for the rest of the back-off. Without a retry pending nothing happens. */
    retryNow(): void;
    /**
     * Send an event.
     *
     * @param {object} event
     * @returns {'sent' | 'closed' | 'full'} `full`: the link is stalled and the event was not queued
     */
    send(event: object): 'sent' | 'closed' | 'full';
    /** Close for good. */
    close(): void;
}
/** The token callback gave nothing: nobody is signed in. */
export declare class NoToken extends Error {
}
