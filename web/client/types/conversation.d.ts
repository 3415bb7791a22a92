export type Hub = {
    send: (event: Record<string, any>) => boolean;
    tell: (name: string, detail: object) => void;
    notice: (code: string, detail?: string, retryInMs?: number) => void;
    speaker: () => import('./speaker.js').Speaker | undefined;
    /**
     * the server took the session
     */
    answered: (conversationId?: string) => void;
    refreshToken: () => void;
};
/**
 * What the protocol means for a conversation: events in; captions, sound and events out.
 *
 * Knows nothing of sockets, permission or devices; those are the client's.
 *
 * @typedef {object} Hub what the conversation may ask of the client
 * @property {(event: Record<string, any>) => boolean} send
 * @property {(name: string, detail: object) => void} tell
 * @property {(code: string, detail?: string, retryInMs?: number) => void} notice
 * @property {() => import('./speaker.js').Speaker | undefined} speaker
 * @property {(conversationId?: string) => void} answered the server took the session
 * @property {() => void} refreshToken
 */
import { Captions } from './captions.js';
import { PushToTalk } from './push-to-talk.js';
export type Activity = 'quiet' | 'listening' | 'hearing' | 'thinking' | 'speaking';
/** @typedef {'quiet' | 'listening' | 'hearing' | 'thinking' | 'speaking'} Activity */
export declare class Conversation {
    #private;
    hub: Hub;
    captions: Captions;
    turns: PushToTalk;
    /** @type {Record<string, (event: any) => void>} */
    handlers: Record<string, (event: any) => void>;
    /** @type {Activity} */ activity: Activity;
    cuts: number;
    /** @param {Hub} hub */
    constructor(hub: Hub);
    /** Take one event from the server; unknown ones are left to the `event` listeners. @param {Record<string, any>} event */
    received(event: Record<string, any>): void;
    /** A new connection took the session. */
    live(): void;
    /** The connection is gone; nothing that was under way will be finished. */
    lost(): void;
    /** First sound of an item. */
    soundStarted(): void;
    /** Last sound of the last item. */
    soundFinished(): void;
    /** Stop the agent's answer, spoken or still being made. */
    interrupt(): Promise<void>;
    /** Say something in writing, in place of what the agent was saying. @param {string} text */
    say(text: string): Promise<void>;
}
