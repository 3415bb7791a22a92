// @ts-check
/** "What Twilio sees": counters and a short list of what happened on the line. */
import { byId, make } from '../page/dom.js';
import { entryWords } from './words.js';

/** The list is for watching, not for keeping: the server's log keeps. */
const MOST_LINES = 60;
/** Who did it decides the colour. @type {Record<string, string>} */
const SIDES = { caller_speaks: 'caller', dtmf: 'caller', agent_speaks: 'agent', clear: 'agent', warning: 'trouble', stream_refused: 'trouble', answered: 'turning', ended: 'turning' };

const seconds = (/** @type {number} */ ms) => `${(ms / 1000).toFixed(1)} s`;

export class WireView {
  #list = byId('wire', HTMLElement);
  #last = '';
  #count = 0;
  /** @type {HTMLElement | null} */ #times = null;

  /** A new call begins. */
  clear() {
    this.#list.replaceChildren();
    this.#last = '';
    this.seen({ frames: 0, received_ms: 0, queued_ms: 0, answer_delay_ms: null, marks: 0, marks_returned: 0, clears: 0, keys: 0, warnings: 0, rejected: 0 });
  }

  /** @param {import('./line.js').Seen} seen */
  seen(seen) {
    const values = {
      sent: `${seen.frames}`, received: seconds(seen.received_ms), queued: seconds(seen.queued_ms),
      delay: seen.answer_delay_ms === null ? '–' : `${seen.answer_delay_ms} ms`,
      marks: `${seen.marks_returned} / ${seen.marks}`, clears: `${seen.clears}`, digits: `${seen.keys}`, faults: `${seen.warnings + seen.rejected}`,
    };
    for (const [name, value] of Object.entries(values)) byId(`seen-${name}`, HTMLElement).textContent = value;
    byId('seen-faults', HTMLElement).classList.toggle('some', seen.warnings + seen.rejected > 0);
  }

  /** @param {import('./line.js').Entry} entry */
  entry(entry) {
    const words = entryWords(entry);
    if (!words) return;
    if (words === this.#last && this.#times) { this.#times.textContent = ` ×${++this.#count}`; return; }
    this.#last = words;
    this.#count = 1;
    this.#times = make('span', 'fine');
    const atEnd = this.#list.scrollTop + this.#list.clientHeight >= this.#list.scrollHeight - 8;
    this.#list.append(make('li', SIDES[entry.event] ?? '', make('span', 'at', entry.at_s.toFixed(2)), make('span', 'what', words, this.#times)));
    while (this.#list.childElementCount > MOST_LINES) this.#list.firstElementChild?.remove();
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }
}
