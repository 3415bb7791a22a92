// @ts-check
/** What the page asks of the server, and the shapes of the answers (handlers/live.py, core/overview.py). */

/**
 * @typedef {{conversation_id: string, connection_id: string, worker: string, channel: string, agent_id: string,
 *   agent: string, user_id: string, call_sid: string | null, since: number, age_s: number, state: string,
 *   speaks: 'user' | 'agent' | 'nobody', level_in: number, level_out: number, turns: number,
 *   first_audio_ms: number | null, last_audio_ms: number | null, cost_usd: number, bytes_in: number, bytes_out: number,
 *   dropped: number, reconnects: number, model: string, voice: string}} LiveRow
 * @typedef {{item_id: string, role: string, text: string, status: string}} Said
 * @typedef {{at: number, side: string, type: string, times: number}} Happening
 * @typedef {LiveRow & {settings: Record<string, unknown>, transcript: Said[], events: Happening[],
 *   end_reason: string | null}} LiveDetail
 * @typedef {{time: string, level: string, event: string, worker: string, fields: Record<string, unknown>}} Trouble
 * @typedef {{le_ms: number | null, count: number}} Bucket
 * @typedef {{version: string | null, simulated: boolean, uptime_s: number, draining: boolean, active: number,
 *   max_connections: number, browser: number, phone: number, error_rate: number | null, recent_ended: number,
 *   first_audio: {p50_ms: number | null, p95_ms: number | null, histogram: Bucket[]}, cost_today_usd: number,
 *   ended: Record<string, number>, workers: {worker: string}[], sessions: LiveRow[], troubles: Trouble[]}} Overview
 * @typedef {{overview: Overview, open?: LiveDetail | Record<string, never>}} Picture
 * @typedef {{id: string, user_id: string, agent_id: string, agent_name: string, channel: string,
 *   call_sid: string | null, started_at: string, last_active_at: string, ended_at: string | null,
 *   end_reason: string | null, turn_count: number, cost_usd: number}} Past
 * @typedef {Past & {usage: Record<string, unknown>, messages: {role: string, content: string, status: string,
 *   heard_ms: number | null, spoken_ms: number | null, metadata: Record<string, unknown>}[]}} PastDetail
 * @typedef {{day: string, conversations: number, cost_usd: number}} Day
 * @typedef {{name: string, state: string, text: string, mend?: string}} Finding
 */

export class ServerError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let csrf = '';

/**
 * The JSON of an address below /admin.
 *
 * @param {string} path
 * @param {'GET' | 'POST' | 'DELETE'} [method]
 * @returns {Promise<any>}
 */
export async function ask(path, method = 'GET') {
  let answer;
  try {
    answer = await fetch(`/admin/${path}`, { method, headers: method === 'GET' ? {} : { 'X-CSRF-Token': csrf } });
  } catch {
    throw new ServerError(0, 'The server did not answer');
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ServerError(answer.status, told.error?.message ?? `The server answered ${answer.status}`);
  return told;
}

/** Learn who we are, and the value that goes with every change. */
export async function introduce() {
  const me = await ask('me');
  csrf = me.csrf;
  return /** @type {{who: string, exposed: boolean}} */ (me);
}

/**
 * The stream of pictures, one a second; opening another session begins it anew.
 */
export class Stream {
  /** @type {EventSource | null} */ #source = null;
  #opened = '';
  #prompt = false;

  /**
   * @param {(picture: Picture, opened: string) => void} seen
   * @param {(words: string) => void} lost called while there is no stream; empty words: the session is over
   */
  constructor(seen, lost) {
    this.seen = seen;
    this.lost = lost;
  }

  /** @param {string} opened id of the session whose words are wanted, or empty @param {boolean} [prompt] */
  look(opened, prompt = false) {
    this.#source?.close();
    this.#opened = opened;
    this.#prompt = prompt;
    const query = new URLSearchParams(opened ? { open: opened, ...(prompt ? { prompt: '1' } : {}) } : {});
    const source = this.#source = new EventSource(`/admin/stream?${query}`);
    source.onmessage = (event) => this.seen(JSON.parse(event.data), opened);
    source.onerror = () => { if (source === this.#source) void this.#failed(source); };
  }

  /** @param {EventSource} source */
  async #failed(source) {
    this.lost('The connection to the server was lost. Trying again.');
    if (source.readyState !== EventSource.CLOSED) return;
    // An answer that is no stream closes it for good: signed out, or the server is away.
    try {
      await introduce();
    } catch (error) {
      if (error instanceof ServerError && error.status === 401) { this.lost(''); return; }
    }
    setTimeout(() => { if (source === this.#source) this.look(this.#opened, this.#prompt); }, 2000);
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }
}
