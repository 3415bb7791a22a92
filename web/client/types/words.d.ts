/**
 * Everything that can go wrong, in words a person can act on.
 *
 * Close codes and their `code` names are the gateway's own table (docs/protocol.md, "Close codes").
 *
 * @typedef {'end' | 'retry' | 'sign_in'} Next what the client does: stop, connect again, or ask for a fresh token first
 *
 * @typedef {object} Problem
 * @property {string} code stable name, for programs
 * @property {string} message what happened, one sentence
 * @property {string} advice what to do next, one sentence
 * @property {string} detail the technical text: close code, browser error, server message; never a token
 * @property {boolean} fatal true: the conversation is over until start() is called again
 *
 * @typedef {{when?: string, code: string, message: string, advice: string, next: Next}} CloseRow
 */
export type Next = 'end' | 'retry' | 'sign_in';
export type Problem = {
    /**
     * stable name, for programs
     */
    code: string;
    /**
     * what happened, one sentence
     */
    message: string;
    /**
     * what to do next, one sentence
     */
    advice: string;
    /**
     * the technical text: close code, browser error, server message; never a token
     */
    detail: string;
    /**
     * true: the conversation is over until start() is called again
     */
    fatal: boolean;
};
export type CloseRow = {
    when?: string;
    code: string;
    message: string;
    advice: string;
    next: Next;
};
/**
 * What a WebSocket close means.
 *
 * @param {number} status RFC 6455 close code; 1006 when the connection died without one
 * @param {string} reason the server's reason text
 * @returns {Problem & {next: Next}}
 */
export declare function closeWords(status: number, reason: string): Problem & {
    next: Next;
};
/**
 * The problem of that name.
 *
 * @param {string} key a name of the table above, or a DOMException name
 * @param {{detail?: string, fatal?: boolean}} [more]
 * @returns {Problem}
 */
export declare function problemWords(key: string, { detail, fatal }?: {
    detail?: string;
    fatal?: boolean;
}): Problem;
/**
 * Why getUserMedia refused.
 *
 * @param {unknown} error what it threw
 * @returns {Problem}
 */
export declare function microphoneWords(error: unknown): Problem;
/** @type {Record<string, string>} */
export declare const NOTICES: Record<string, string>;
