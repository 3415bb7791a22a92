/**
 * Who said what: deltas in, captions out, keyed by item.
 *
 * @typedef {object} Caption
 * @property {'you' | 'agent'} who
 * @property {string} id item id; a later caption with the same id replaces this one
 * @property {string} text everything so far; empty while nothing is known yet, or (final) if nothing was understood
 * @property {boolean} final no more words will come
 * @property {boolean} interrupted the agent was cut off
 * @property {number} heard 0..1, estimated share of the text that was heard; 1 unless interrupted
 */
export type Caption = {
    who: 'you' | 'agent';
    /**
     * item id; a later caption with the same id replaces this one
     */
    id: string;
    /**
     * everything so far; empty while nothing is known yet, or (final) if nothing was understood
     */
    text: string;
    /**
     * no more words will come
     */
    final: boolean;
    /**
     * the agent was cut off
     */
    interrupted: boolean;
    /**
     * 0..1, estimated share of the text that was heard; 1 unless interrupted
     */
    heard: number;
};
export declare class Captions {
    #private;
    tell: (caption: Caption) => void;
    /** @param {(caption: Caption) => void} tell */
    constructor(tell: (caption: Caption) => void);
    /** Keep a place for words that will come later than the answer to them. @param {string} id */
    expect(id: string): void;
    /** @param {'you' | 'agent'} who @param {string} id @param {string} delta */
    add(who: 'you' | 'agent', id: string, delta: string): void;
    /** @param {'you' | 'agent'} who @param {string} id @param {string} text empty keeps what the deltas gave */
    finish(who: 'you' | 'agent', id: string, text: string): void;
    /** The agent was cut off here. @param {string} id @param {number} heard 0..1 */
    interrupt(id: string, heard: number): void;
    /** Words of yours that have not come by now will not: an empty caption takes their place away. */
    giveUp(): void;
    /** The connection is gone: nothing unfinished will be finished. */
    settle(): void;
}
