// @ts-check
/**
 * Everything the telephone says in words: how a call ended, what the microphone does, what Twilio sees.
 *
 * @typedef {{message: string, advice: string, detail: string, bad: boolean}} Told bad: something is to be mended
 */
import { microphoneWords } from '/client/lib/words.js';

/** @param {string} message @param {string} [advice] @param {string} [detail] @param {boolean} [bad] @returns {Told} */
const told = (message, advice = '', detail = '', bad = false) => ({ message, advice, detail, bad });

/** Why the voice webhook gave no document. @param {number | null} status @param {string} detail */
function webhookWords(status, detail) {
  if (!status) return told('The server did not answer Twilio.', 'Is the server running? Look at its terminal.', detail, true);
  if (status === 401 || status === 403) {
    return told('The server did not believe that Twilio called.',
      'Its TWILIO_AUTH_TOKEN or PUBLIC_URL is not the one this telephone signs with.', detail, true);
  }
  if (status === 404) return told('The server has no voice webhook at that address.', 'Is the phone door switched on?', detail, true);
  return told('The server’s voice webhook failed.', 'Look at the server’s error.log.', detail, true);
}

/**
 * How a call ended.
 *
 * @param {import('./line.js').Ended} ended
 * @returns {Told}
 */
export function endWords(ended) {
  const detail = ended.warnings.map((one) => `${one.code || 'note'} ${one.text}`).join(' · ');
  if (ended.by === 'caller') return told(ended.answered ? 'You hung up.' : 'You hung up before it was answered.');
  if (ended.by === 'refused') return told('The number is busy.', 'The server turned the call away: <Reject>.', detail);
  if (ended.by === 'time-limit') return told('The call reached the longest time Twilio allows.');
  if (ended.by === 'simulator') return told('The line was switched off.', 'The demo is stopping.');
  if (ended.by === 'error') {
    if (ended.webhook_status === 200) return told('Twilio did not understand the server’s answer.', 'Its TwiML is described below, as Twilio would.', detail, true);
    return webhookWords(ended.webhook_status, detail);
  }
  const refused = ended.warnings.find((one) => one.code >= 31900 && one.code <= 31941);
  if (!ended.streams && refused) return told('The server refused the media stream.', 'Twilio’s reason is below.', detail, true);
  if (!ended.streams) return told('No agent answered.', 'The server ended the call itself. Has this number an agent?', detail);
  if (ended.close_code !== null && ended.close_code !== 1000) {
    return told('The server broke off the call.', 'Look at the server’s log.', [`close ${ended.close_code}`, detail].filter(Boolean).join(' · '), true);
  }
  return told('The agent hung up.', '', detail);
}

/** The line died before the call ended. @param {boolean} opened it had been there */
export function lostWords(opened) {
  return opened
    ? told('The line went dead.', 'Is the demo still running?', 'The WebSocket to the simulated Twilio closed.', true)
    : told('The telephone line cannot be reached.',
      'Is the demo still running? If it runs on another computer, its phone port must be forwarded too.', 'The WebSocket to the simulated Twilio did not open.', true);
}

/** There is no telephone here. @param {unknown} error */
export const noLineWords = (error) => told('This page cannot find its telephone line.', 'Is ./voice demo still running? Start it, then call again.', String(error), true);

/** A number nobody can have. */
export const badNumber = told('That is no telephone number.', 'Numbers have 3 to 15 digits, the country first: +1 500 555 0106.');

/** @param {unknown} error what getUserMedia threw */
export function silentWords(error) {
  const { message, detail } = microphoneWords(error);
  return told(message, 'The call goes on without it: you can listen and press keys.', detail);
}

/** Empty takes the last one away. @type {Record<'prompt' | 'silent' | 'heard' | 'lost' | 'paused' | 'back' | 'no_sound' | 'asleep', string>} */
export const HAPPENINGS = {
  prompt: 'Your browser is asking for the microphone. Choose Allow.',
  silent: 'The microphone is open but gives no sound at all. Is it switched off on the device?',
  heard: '',
  lost: 'The microphone went away. The call goes on: you can listen and press keys.',
  paused: 'The device paused the microphone.',
  back: 'The microphone is back.',
  no_sound: 'No sound output was found. The call goes on; you can speak and press keys.',
  asleep: 'The device paused the sound. Tap or click anywhere to bring it back.',
};

const CLOSERS = /** @type {Record<string, string>} */ ({ application: 'the server closed the stream', twilio: 'Twilio closed the stream', nobody: 'the stream’s connection was lost' });
const WEBHOOKS = /** @type {Record<string, string>} */ ({ voice: 'Voice webhook', action: 'Action webhook', redirect: 'Redirect', play: 'Sound file',
  'stream-status': 'Stream status callback', 'call-status': 'Call status callback' });
const ENDERS = /** @type {Record<string, string>} */ ({ caller: 'by the caller', application: 'by the server', rest: 'by the REST API', error: 'after an error', 'time-limit': 'at the time limit', refused: 'rejected', simulator: 'by the simulator' });

/** @type {Record<string, (detail: Record<string, any>) => string>} */
const ENTRIES = {
  webhook: (d) => `${WEBHOOKS[d.kind] ?? d.kind} ${d.path} answered ${d.status || 'nothing'} in ${d.ms} ms`,
  answered: () => 'Answered',
  stream_started: () => 'Media stream open',
  stream_refused: (d) => `Media stream refused${d.status ? `: HTTP ${d.status}` : ''}`,
  stream_closed: (d) => `Media stream closed: ${CLOSERS[d.by] ?? d.by}${d.code ? ` (${d.code})` : ''}`,
  query_stripped: () => 'Query of the stream’s address dropped',
  start: () => 'start sent',
  stop: () => 'stop sent',
  agent_speaks: () => 'Speech on the line',
  agent_silent: () => 'The line is silent',
  caller_speaks: () => 'You speak',
  caller_silent: () => 'You are silent',
  dtmf: () => 'dtmf sent: one key',
  clear: (d) => (d.queued_ms ? `clear: ${(d.queued_ms / 1000).toFixed(1)} s of speech dropped` : 'clear: nothing was queued'),
  verb: (d) => `<${d.name}>`,
  dial: () => 'Transfer to another number',
  tones: (d) => `${d.count} tones played`,
  warning: (d) => `${d.code || 'Note'} ${d.text}`,
  ended: (d) => `Ended ${ENDERS[d.by] ?? d.by}: ${d.status}`,
};

/** A line of the list; empty for what needs none. @param {import('./line.js').Entry} entry */
export const entryWords = ({ event, detail }) => ENTRIES[event]?.(detail) ?? '';
