// @ts-check
/**
 * One lasting connection to the gateway over many WebSockets: deadlines, back-off, bounded sending.
 *
 * @typedef {import('./words.js').Problem} Problem
 *
 * @typedef {object} LinkEars
 * @property {() => Promise<{url: URL, protocols: string[]}>} address asked before every connection
 * @property {() => void} opened the socket is open; the server has not spoken yet
 * @property {(event: Record<string, any>) => void} received
 * @property {(wait: {retryInMs: number, attempt: number, why: Problem}) => void} waiting a retry is due in retryInMs
 * @property {(why: Problem & {next: import('./words.js').Next}) => void} ended no retry will follow
 */
import { closeWords, problemWords } from './words.js';

/** The gateway itself gives its upstream about 10 s; more than that is a dead server. */
const ANSWER_DEADLINE_MS = 15_000;
const TOKEN_DEADLINE_MS = 10_000;
/** 250 ms doubled up to 8 s, with a quarter of jitter: a restarted server is not met by everybody at once. */
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8_000;
/** A full or restarting server is given longer from the start. */
const BUSY_WAIT_MS = 2_000;
/** About a minute and a half of trying for a conversation that was live, a few seconds for one that never was. */
const TRIES_ONCE_LIVE = 14;
const TRIES_AT_FIRST = 4;
/** A connection that lasted this long was a good one: the next loss starts counting anew. */
const GOOD_AFTER_MS = 10_000;
/** About 8 s of sound in base64. Beyond it the link is stalled and old speech would only arrive late. */
const MOST_BUFFERED_BYTES = 512 * 1024;

export class Link {
  /** @type {WebSocket | null} */ #socket = null;
  /** Raised by every open() and close(), so that what was begun before can see that it is stale. */
  #run = 0;
  #tries = 0;
  #answered = false;
  #wasLive = false;
  #goodSince = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #deadline;
  #retryOnline = () => this.retryNow();

  /** @param {LinkEars} ears */
  constructor(ears) {
    this.ears = ears;
    globalThis.addEventListener?.('online', this.#retryOnline);
  }

  /** The socket is open and may be written to. */
  get isOpen() { return this.#socket?.readyState === WebSocket.OPEN; }

  /** Connect, or connect anew; an earlier socket is closed first. */
  async open() {
    const run = ++this.#run;
    this.#dropSocket();
    let address;
    try {
      address = await within(TOKEN_DEADLINE_MS, this.ears.address());
    } catch (error) {
      if (run === this.#run) this.#noAddress(error);
      return;
    }
    if (run !== this.#run) return;
    this.#connect(address);
  }

  /** @param {{url: URL, protocols: string[]}} address */
  #connect({ url, protocols }) {
    this.#answered = false;
    let socket;
    try {
      socket = new WebSocket(url, protocols);
    } catch (error) {
      // Only a malformed subprotocol does this, and the token is the only part of it that is not ours.
      this.ears.ended({ ...problemWords('bad_token', { fatal: true, detail: /** @type {Error} */ (error).name }), next: 'sign_in' });
      return;
    }
    this.#socket = socket;
    socket.onopen = () => this.ears.opened();
    socket.onmessage = ({ data }) => { if (this.#socket === socket) this.#read(data); };
    socket.onclose = ({ code, reason }) => { if (this.#socket === socket) this.#closed(code, reason); };
    this.#deadline = setTimeout(() => this.#closed(1006, 'no answer'), ANSWER_DEADLINE_MS);
  }

  /** @param {string | ArrayBuffer} data */
  #read(data) {
    let event;
    try {
      event = JSON.parse(typeof data === 'string' ? data : new TextDecoder().decode(data));
    } catch {
      return;                                   // not an event: nothing in the protocol looks like this
    }
    if (event && typeof event.type === 'string') this.ears.received(event);
  }

  /** The server took the session: tell the link, so that it stops counting failures. */
  answered() {
    if (this.#answered) return;
    this.#answered = this.#wasLive = true;
    this.#goodSince = Date.now();
    clearTimeout(this.#deadline);
  }

  /** @param {unknown} error */
  #noAddress(error) {
    const fatal = error instanceof NoToken || !this.#wasLive || this.#tries >= TRIES_ONCE_LIVE;
    const words = problemWords(error instanceof NoToken ? 'no_token' : 'token_failed', { fatal, detail: /** @type {Error} */ (error)?.name ?? 'token' });
    if (fatal) this.ears.ended({ ...words, next: 'sign_in' });
    else this.#retry(words, FIRST_WAIT_MS);
  }

  /** @param {number} status @param {string} reason */
  #closed(status, reason) {
    this.#dropSocket();
    if (this.#answered && Date.now() - this.#goodSince > GOOD_AFTER_MS) this.#tries = 0;
    const words = closeWords(status, reason);
    if (words.next !== 'retry') { this.ears.ended(words); return; }
    if (this.#tries >= (this.#wasLive ? TRIES_ONCE_LIVE : TRIES_AT_FIRST)) {
      const last = words.code === 'lost' ? problemWords(reason === 'no answer' ? 'silent_server' : 'unreachable') : words;
      this.ears.ended({ ...last, detail: words.detail, fatal: true, next: 'end' });
      return;
    }
    this.#retry(words, words.code === 'capacity' || words.code === 'drain' ? BUSY_WAIT_MS : FIRST_WAIT_MS);
  }

  /** @param {Problem} why @param {number} first ms */
  #retry(why, first) {
    const wait = Math.min(LONGEST_WAIT_MS, first * 2 ** this.#tries++) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.retryNow(), wait);
    this.ears.waiting({ retryInMs: Math.round(wait), attempt: this.#tries, why });
  }

  /** Do not wait for the rest of the back-off. Without a retry pending nothing happens. */
  retryNow() {
    if (this.#timer === undefined) return;
    void this.open();
  }

  /**
   * Send an event.
   *
   * @param {object} event
   * @returns {'sent' | 'closed' | 'full'} `full`: the link is stalled and the event was not queued
   */
  send(event) {
    const socket = this.#socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) return 'closed';
    if (socket.bufferedAmount > MOST_BUFFERED_BYTES) return 'full';
    socket.send(JSON.stringify(event));
    return 'sent';
  }

  #dropSocket() {
    clearTimeout(this.#timer);
    clearTimeout(this.#deadline);
    this.#timer = undefined;
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Also a socket still connecting: the browser then gives up on it.
    socket.close(1000);
  }

  /** Close for good. */
  close() {
    this.#run++;
    this.#dropSocket();
    globalThis.removeEventListener?.('online', this.#retryOnline);
  }
}

/** The token callback gave nothing: nobody is signed in. */
export class NoToken extends Error {}

/**
 * @template T
 * @param {number} ms
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function within(ms, promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new DOMException('No token in time', 'TimeoutError')), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
