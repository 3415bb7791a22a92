/**
 * The gateway speaks two dialects; this client thinks in OpenAI's own (`ga`) names.
 * Its counterpart in the server is core/dialect.py.
 */
/** @param {string} type event name in either dialect @returns {string} its `ga` name */
export declare function gaName(type: string): string;
/**
 * The turn detection of a session.
 *
 * @param {any} session as in session.created or session.updated, either dialect
 * @returns {Record<string, any> | null | undefined} null: turns are ended by hand; undefined: the event does not say
 */
export declare function turnDetectionOf(session: any): Record<string, any> | null | undefined;
/**
 * A session.update that sets the turn detection, in the dialect the session was told in.
 *
 * @param {any} session the session as the server told it, if it did
 * @param {Record<string, any> | null} turnDetection
 * @returns {{type: 'session.update', session: object}}
 */
export declare function turnDetectionUpdate(session: any, turnDetection: Record<string, any> | null): {
    type: 'session.update';
    session: object;
};
