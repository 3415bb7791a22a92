// @ts-check
/**
 * Who said what: deltas in, captions out, keyed by item.
 *
 * @typedef {object} Caption
 * @property {'you' | 'agent'} who
 * @property {string} id item id; a later caption with the same id replaces this one
 * @property {string} text everything so far; empty while nothing is known yet, or (final) if nothing was understood
 * @property {boolean} final no more words will come
 * @property {boolean} interrupted the agent was cut off
 * @property {number} heard 0..1, estimated share of the text that was heard; 1 unless interrupted
 */

/** More than any conversation shows at once; older items get no late changes. */
const MOST_ITEMS = 500;

export class Captions {
  /** @type {Map<string, Caption>} */ #items = new Map();

  /** @param {(caption: Caption) => void} tell */
  constructor(tell) { this.tell = tell; }

  /** @param {'you' | 'agent'} who @param {string} id @returns {Caption} */
  #item(who, id) {
    let item = this.#items.get(id);
    if (!item) {
      item = { who, id, text: '', final: false, interrupted: false, heard: 1 };
      this.#items.set(id, item);
      if (this.#items.size > MOST_ITEMS) this.#items.delete(/** @type {string} */ (this.#items.keys().next().value));
    }
    return item;
  }

  /** Keep a place for words that will come later than the answer to them. @param {string} id */
  expect(id) { if (!this.#items.has(id)) this.tell({ ...this.#item('you', id) }); }

  /** @param {'you' | 'agent'} who @param {string} id @param {string} delta */
  add(who, id, delta) {
    const item = this.#item(who, id);
    if (item.final) return;
    item.text += delta;
    this.tell({ ...item });
  }

  /** @param {'you' | 'agent'} who @param {string} id @param {string} text empty keeps what the deltas gave */
  finish(who, id, text) {
    const item = this.#item(who, id);
    if (item.final && item.interrupted) return;          // what was heard is shown, not what was meant to be said
    item.text = text || item.text;
    item.final = true;
    this.tell({ ...item });
  }

  /** The agent was cut off here. @param {string} id @param {number} heard 0..1 */
  interrupt(id, heard) {
    const item = this.#items.get(id);
    if (!item || item.interrupted) return;
    item.interrupted = item.final = true;
    item.heard = Math.max(0, Math.min(1, heard));
    this.tell({ ...item });
  }

  /** Words of yours that have not come by now will not: an empty caption takes their place away. */
  giveUp() { for (const { who, id, final, text } of [...this.#items.values()]) if (who === 'you' && !final && !text) this.finish('you', id, ''); }

  /** The connection is gone: nothing unfinished will be finished. */
  settle() {
    for (const item of this.#items.values()) {
      if (item.final) continue;
      item.final = true;
      item.interrupted = item.who === 'agent' && item.text !== '';
      this.tell({ ...item });
    }
  }
}
