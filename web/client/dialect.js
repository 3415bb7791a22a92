// @ts-check
/**
 * The gateway speaks two dialects; this client thinks in OpenAI's own (`ga`) names.
 * Its counterpart in the server is core/dialect.py.
 */

/** @type {Record<string, string>} */
const GA_NAMES = {
  'response.audio.delta': 'response.output_audio.delta',
  'response.audio.done': 'response.output_audio.done',
  'response.audio_transcript.delta': 'response.output_audio_transcript.delta',
  'response.audio_transcript.done': 'response.output_audio_transcript.done',
  'response.text.delta': 'response.output_text.delta',
  'response.text.done': 'response.output_text.done',
};

/** @param {string} type event name in either dialect @returns {string} its `ga` name */
export function gaName(type) { return GA_NAMES[type] ?? type; }

/**
 * The turn detection of a session.
 *
 * @param {any} session as in session.created or session.updated, either dialect
 * @returns {Record<string, any> | null | undefined} null: turns are ended by hand; undefined: the event does not say
 */
export function turnDetectionOf(session) {
  if (!session) return undefined;
  return session.audio?.input && 'turn_detection' in session.audio.input ? session.audio.input.turn_detection : session.turn_detection;
}

/**
 * A session.update that sets the turn detection, in the dialect the session was told in.
 *
 * @param {any} session the session as the server told it, if it did
 * @param {Record<string, any> | null} turnDetection
 * @returns {{type: 'session.update', session: object}}
 */
export function turnDetectionUpdate(session, turnDetection) {
  if (session?.audio) return { type: 'session.update', session: { type: 'realtime', audio: { input: { turn_detection: turnDetection } } } };
  return { type: 'session.update', session: { turn_detection: turnDetection } };
}
