// @ts-check
/**
 * Push to talk: nothing is sent unless held, and letting go ends the turn.
 *
 * The server's own turn detection is switched off meanwhile, or it would answer in every pause while the button is
 * held and would wait for a silence that is never sent (Realtime API, manual turns: commit, then response.create).
 * Where the agent's owner does not leave that to clients, letting go sends the silence instead.
 *
 * @typedef {object} Duties
 * @property {(turnDetection: Record<string, any> | null) => void} setTurnDetection tell the server who ends turns
 * @property {() => void} pressed silence the agent and forget what the server has not used yet
 * @property {() => void} released commit the turn and ask for the answer
 * @property {(ms: number) => void} fellSilent send that much silence, so that the server's turn detection ends the turn
 * @property {() => void} tooShort forget the turn
 */

/** People let go on the last syllable: keep listening this long. Four pieces of 40 ms. */
const TAIL_MS = 160;
/** Nobody says a word in less: it was a slip of the finger. */
const SHORTEST_HOLD_MS = 150;
/** The API refuses to commit less than 100 ms: three pieces of 40 ms. */
const FEWEST_PIECES = 3;
/** On top of the silence the server waits for: it listens in steps of its own. */
const MORE_SILENCE_MS = 300;
/** What the server does when the session did not say: its documented default, with values sent explicitly. */
const SERVER_DEFAULT = { type: 'server_vad', threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 500 };

export class PushToTalk {
  /** Switched on. */
  on = false;
  /** The button is down. */
  holding = false;
  /** @type {Record<string, any>} */ #serverTurns = SERVER_DEFAULT;
  #refused = false;
  #pieces = 0;
  #heldSince = 0;
  #heldMs = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #tail;

  /** @param {Duties} duties */
  constructor(duties) { this.duties = duties; }

  /** The server may cut the agent off when it hears speech. */
  get serverInterrupts() { return this.#serverTurns.interrupt_response !== false; }

  /** What the session says about turns; null is our own doing and is not remembered. @param {Record<string, any> | null | undefined} turns */
  told(turns) { if (turns) this.#serverTurns = turns; }

  /** @param {boolean} on */
  set(on) {
    if (on === this.on) return;
    if (!on) this.letGo();
    this.on = on;
    this.duties.setTurnDetection(on ? null : this.#serverTurns);
  }

  /** The server keeps its own turn detection. */
  refused() { this.#refused = true; }

  /** A new session knows nothing of what the last one was told. */
  renew() { if (this.on) this.duties.setTurnDetection(null); }

  /** @param {boolean} down */
  hold(down) {
    if (!this.on || down === this.holding) return;
    this.holding = down;
    const inTail = this.#tail !== undefined;
    clearTimeout(this.#tail);
    this.#tail = undefined;
    if (!down) {
      this.#heldMs += performance.now() - this.#heldSince;
      this.#tail = setTimeout(() => this.#finish(), TAIL_MS);
      return;
    }
    this.#heldSince = performance.now();
    if (inTail) return;                          // pressed again at once: the same turn goes on
    this.#pieces = this.#heldMs = 0;
    this.duties.pressed();
  }

  /** Whether a piece of sound is to be sent. */
  passes() {
    if (!this.on) return true;
    if (!this.holding && this.#tail === undefined) return false;
    this.#pieces++;
    return true;
  }

  #finish() {
    this.#tail = undefined;
    if (this.#heldMs < SHORTEST_HOLD_MS || this.#pieces < FEWEST_PIECES) this.duties.tooShort();
    else if (this.#refused) this.duties.fellSilent((this.#serverTurns.silence_duration_ms ?? SERVER_DEFAULT.silence_duration_ms) + MORE_SILENCE_MS);
    else this.duties.released();
  }

  /** End a turn in progress at once; used when push to talk or the conversation ends. */
  letGo() {
    const open = this.holding || this.#tail !== undefined;
    clearTimeout(this.#tail);
    if (this.holding) this.#heldMs += performance.now() - this.#heldSince;
    this.holding = false;
    if (open) this.#finish();
  }
}
