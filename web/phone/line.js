// @ts-check
/**
 * The line to the simulated Twilio: one WebSocket, one call. Its messages are described in simulator/softphone.py.
 *
 * @typedef {{number: string, name: string, detail: string}} Listed
 * @typedef {{url: string, secret: string, numbers: Listed[], caller: string}} LineInfo
 *
 * @typedef {{frames: number, received_ms: number, queued_ms: number, answer_delay_ms: number | null, marks: number, marks_returned: number, clears: number,
 *   keys: number, warnings: number, rejected: number}} Seen
 * @typedef {{at_s: number, event: string, detail: Record<string, any>}} Entry
 * @typedef {{by: string, status: string, seconds: number, answered: boolean, streams: number, webhook_status: number | null,
 *   close_code: number | null, warnings: {code: number, text: string}[]}} Ended
 *
 * @typedef {object} LineEars
 * @property {() => void} ringing
 * @property {() => void} answered
 * @property {(ended: Ended) => void} ended
 * @property {(opened: boolean) => void} lost the line died before the call's end; `opened`: it had been there
 * @property {(seen: Seen) => void} seen
 * @property {(entry: Entry) => void} entry
 * @property {(audio: ArrayBuffer) => void} sound 20 ms, mu-law
 */

/** The simulator is on the same computer: it answers at once or not at all. */
const OPEN_DEADLINE_MS = 4000;

/** What the page must know to call. @returns {Promise<LineInfo>} @throws {TypeError} if the server does not answer or has no telephone */
export async function readLine() {
  const answer = await fetch('/phone/line', { cache: 'no-store' });
  if (!answer.ok) throw new TypeError(`GET /phone/line: ${answer.status}`);
  return await answer.json();
}

export class Line {
  #over = false;
  #opened = false;

  /** @param {LineInfo} info @param {string} number E.164 @param {LineEars} ears */
  constructor(info, number, ears) {
    this.ears = ears;
    this.socket = new WebSocket(info.url, ['softphone', info.secret]);
    this.socket.binaryType = 'arraybuffer';
    const late = setTimeout(() => this.socket.close(), OPEN_DEADLINE_MS);
    this.socket.onopen = () => { clearTimeout(late); this.#opened = true; this.#tell({ type: 'dial', to: number }); };
    this.socket.onmessage = ({ data }) => { if (typeof data === 'string') this.#take(JSON.parse(data)); else if (!this.#over) ears.sound(data); };
    this.socket.onclose = () => { clearTimeout(late); if (!this.#over) { this.#over = true; ears.lost(this.#opened); } };
  }

  /** @param {any} message */
  #take(message) {
    // What comes after the end are answers to Twilio's last callbacks: only the list wants them.
    if (message.type === 'entry') this.ears.entry(message);
    else if (message.type === 'seen') this.ears.seen(message);
    else if (this.#over) return;
    else if (message.type === 'ringing') this.ears.ringing();
    else if (message.type === 'in_call') this.ears.answered();
    else if (message.type === 'ended') { this.#over = true; this.ears.ended(message); }
  }

  /** @param {Record<string, string>} message */
  #tell(message) { if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message)); }

  /** @param {Uint8Array<ArrayBuffer>} audio mu-law */
  say(audio) { if (!this.#over && this.socket.readyState === WebSocket.OPEN) this.socket.send(audio); }

  /** @param {string} digits */
  press(digits) { this.#tell({ type: 'keys', digits }); }

  /** Hang up; `ended` follows when Twilio has let go of the call. */
  hangUp() { this.#tell({ type: 'hang_up' }); }

  /** Listen no more. */
  close() { this.#over = true; this.socket.close(); this.socket.onmessage = null; }
}
