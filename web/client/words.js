// @ts-check
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

/** Rows of one code are tried in order; `when` is a part of the close reason, and the last row needs none.
 * @type {Record<number, CloseRow[]>} */
const CLOSES = {
  1000: [{ code: 'agent_ended', message: 'The agent ended the conversation.', advice: 'Press Start to talk again.', next: 'end' }],
  1001: [{ code: 'lost', message: 'The server closed the connection.', advice: 'It is being opened again.', next: 'retry' }],
  1009: [{ code: 'client_error', message: 'A message was too large for the server.',
    advice: 'Send a shorter text, or press Start to go on.', next: 'end' }],
  1011: [
    { when: 'key', code: 'key_missing', message: 'This server has no OpenAI key.',
      advice: 'Ask the person who runs it to add one; "./voice doctor" says how.', next: 'end' },
    { code: 'internal', message: 'The server had a fault of its own.',
      advice: 'If it happens again, tell the person who runs it when it was.', next: 'retry' }],
  1012: [{ code: 'drain', message: 'The server is restarting.', advice: 'The conversation goes on in a moment.', next: 'retry' }],
  1013: [{ code: 'capacity', message: 'The server is full.', advice: 'Wait a minute, then press Start.', next: 'retry' }],
  4000: [{ code: 'bad_request', message: 'The page did not say which agent to call.',
    advice: 'Choose an agent, or check the address of this page.', next: 'end' }],
  4001: [{ code: 'unauthorized', message: 'Your sign-in has expired or was not accepted.',
    advice: 'Sign in again, then press Start.', next: 'sign_in' }],
  4004: [
    { when: 'conversation', code: 'not_found', message: 'That conversation does not exist any more.',
      advice: 'Press Start to begin a new one.', next: 'end' },
    { code: 'not_found', message: 'This agent does not exist, or it is not yours.', advice: 'Choose another agent.', next: 'end' }],
  4008: [
    { when: 'idle', code: 'idle', message: 'Nobody spoke for a while, so the conversation was closed.',
      advice: 'Press Start to go on where you left off.', next: 'end' },
    { code: 'time_limit', message: 'The longest time for one session is over.',
      advice: 'Press Start to go on where you left off.', next: 'end' }],
  4009: [{ code: 'client_error', message: 'The server did not accept what this page sent.',
    advice: 'Reload the page to get its newest version.', next: 'end' }],
  4029: [
    { when: 'budget', code: 'budget', message: 'Today’s budget for talking is used up.',
      advice: 'Come back tomorrow, or ask for a larger budget.', next: 'end' },
    { code: 'too_many', message: 'You already have too many conversations open.',
      advice: 'Close one in another tab or device, then press Start.', next: 'end' }],
  4502: [{ code: 'upstream', message: 'The speech service is not answering.',
    advice: 'Wait a minute, then press Start.', next: 'end' }],
};

/** Registered codes that mean the two sides disagree about the protocol: trying again would end the same way. */
const DISAGREEMENT = new Set([1002, 1003, 1007, 1008, 1010]);

/**
 * What a WebSocket close means.
 *
 * @param {number} status RFC 6455 close code; 1006 when the connection died without one
 * @param {string} reason the server's reason text
 * @returns {Problem & {next: Next}}
 */
export function closeWords(status, reason) {
  const detail = `close ${status}${reason ? ` ${reason}` : ''}`;
  const rows = CLOSES[status];
  if (rows) {
    const row = rows.find((one) => !one.when || reason.toLowerCase().includes(one.when)) ?? rows[rows.length - 1];
    return { code: row.code, message: row.message, advice: row.advice, next: row.next, detail, fatal: row.next !== 'retry' };
  }
  if (DISAGREEMENT.has(status)) {
    return { code: 'protocol', message: 'This page and the server do not understand each other.',
      advice: 'Reload the page to get its newest version.', next: 'end', detail, fatal: true };
  }
  if (status >= 3000) {
    return { code: 'closed', message: 'The server ended the conversation.',
      advice: 'Press Start to try again; the detail below says why.', next: 'end', detail, fatal: true };
  }
  return { code: 'lost', message: 'The connection was lost.', advice: 'It is being opened again.', next: 'retry', detail, fatal: false };
}

/** @type {Record<string, {code: string, message: string, advice: string}>} */
const BROWSER = {
  NotAllowedError: { code: 'mic_blocked', message: 'The microphone is blocked for this page.',
    advice: 'Allow it beside the address, then press Start. You can also type.' },
  dismissed: { code: 'mic_dismissed', message: 'The browser’s question about the microphone was closed.',
    advice: 'Press Start and choose Allow. You can also type.' },
  system: { code: 'mic_blocked_by_system', message: 'The system does not let this browser use the microphone.',
    advice: 'Allow it in the privacy settings of your computer or phone, then press Start.' },
  SecurityError: { code: 'mic_forbidden', message: 'This page is not allowed to use a microphone.',
    advice: 'Open it in a tab of its own, or type instead.' },
  NotFoundError: { code: 'no_mic', message: 'No microphone was found.', advice: 'Plug one in and press Start, or type instead.' },
  NotReadableError: { code: 'mic_busy', message: 'The microphone cannot be opened; another program may be using it.',
    advice: 'Close that program, then press Start. You can also type.' },
  AbortError: { code: 'mic_failed', message: 'The microphone stopped working while it was being opened.',
    advice: 'Unplug it and plug it in again, then press Start.' },
  OverconstrainedError: { code: 'mic_gone', message: 'The chosen microphone is not there any more.',
    advice: 'Choose another one, then press Start.' },
  InvalidStateError: { code: 'page_asleep', message: 'The page was not in front when the microphone was asked for.',
    advice: 'Bring this page to the front, then press Start.' },
  insecure: { code: 'insecure', message: 'Browsers give the microphone only to secure pages.',
    advice: 'Open this page with https:// (or on localhost). You can also type.' },
  worklet: { code: 'no_audio_engine', message: 'The sound part of this page could not be loaded.',
    advice: 'Reload the page; if it stays, use a newer browser.' },
  mic_lost: { code: 'mic_lost', message: 'The microphone went away.', advice: 'Plug it in or choose another one. You can also type.' },
  mic_paused: { code: 'mic_paused', message: 'The device paused the microphone, perhaps for a call.',
    advice: 'Come back to this page when the call is over.' },
  paused: { code: 'paused', message: 'The device paused the sound.', advice: 'Tap or click anywhere to bring it back.' },
  no_sound: { code: 'no_sound', message: 'No sound output was found.', advice: 'You can still read what the agent says.' },
  no_token: { code: 'unauthorized', message: 'You are not signed in.', advice: 'Sign in, then press Start.' },
  bad_token: { code: 'bad_token', message: 'The sign-in token has characters a token cannot have.',
    advice: 'Copy it again, whole and without spaces.' },
  token_failed: { code: 'token_failed', message: 'The page could not get a sign-in token.',
    advice: 'Check your connection, sign in again, then press Start.' },
  unreachable: { code: 'unreachable', message: 'The server cannot be reached.',
    advice: 'Check your internet connection, then press Start. If others cannot reach it either, tell the person who runs it.' },
  silent_server: { code: 'silent_server', message: 'The server does not answer.', advice: 'Wait a minute, then press Start.' },
  response_failed: { code: 'response_failed', message: 'The agent could not finish its answer.', advice: 'Say it again, or ask something else.' },
  error: { code: 'error', message: 'The server reported an error.', advice: 'The conversation goes on. If it happens again, show the detail to the person who runs it.' },
};

/**
 * The problem of that name.
 *
 * @param {string} key a name of the table above, or a DOMException name
 * @param {{detail?: string, fatal?: boolean}} [more]
 * @returns {Problem}
 */
export function problemWords(key, { detail = key, fatal = false } = {}) {
  return { ...(BROWSER[key] ?? { code: 'unknown', message: 'Something went wrong.', advice: 'Press Start to try again.' }), detail, fatal };
}

/**
 * Why getUserMedia refused.
 *
 * @param {unknown} error what it threw
 * @returns {Problem}
 */
export function microphoneWords(error) {
  const { name, message } = error instanceof Error || error instanceof DOMException ? error : { name: 'unknown', message: String(error) };
  const told = `${name}: ${message}`;
  if (name === 'NotAllowedError' && /system/i.test(message)) return problemWords('system', { detail: told });
  if (name === 'NotAllowedError' && /dismiss/i.test(message)) return problemWords('dismissed', { detail: told });
  // Names from before the specification settled, still thrown by some embedded browsers.
  const old = { PermissionDeniedError: 'NotAllowedError', DevicesNotFoundError: 'NotFoundError', TrackStartError: 'NotReadableError',
    ConstraintNotSatisfiedError: 'OverconstrainedError', TypeError: 'insecure' };
  return problemWords(/** @type {Record<string, string>} */ (old)[name] ?? name, { detail: told });
}

/** @type {Record<string, string>} */
export const NOTICES = {
  reconnecting: 'The agent’s line dropped and is being opened again. Nothing is lost.',
  reconnected: 'The agent is back.',
  draining: 'The server will restart soon; you will be connected again by itself.',
  time_limit_soon: 'This session ends soon. You can start again and go on where you left off.',
  budget_soon: 'Most of today’s budget for talking is used up.',
  token_expiring: 'Your sign-in was renewed.',
  slow_reader: 'Your connection is slow; some sound was left out.',
  slow_link: 'Your connection is slow; some of what you said was not sent.',
  muted_speaking: 'You are muted. The agent cannot hear you.',
  mic_silent: 'The microphone is open but gives no sound at all. Is it switched off on the device?',
  mic_prompt: 'Your browser is asking for the microphone. Choose Allow.',
  mic_back: 'The microphone is back.',
  held_too_short: 'Keep the button down while you speak.',
  answer_cut: 'The answer reached its longest length and was cut.',
};
