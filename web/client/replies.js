// @ts-check
/**
 * Which answers are under way, and which pieces of sound still count.
 *
 * After an interruption pieces of the old answer are still on their way; they are known by their item or response.
 */

/** Late pieces follow within seconds; two hundred interruptions back nothing is under way. */
const MOST_REMEMBERED = 200;

export class Replies {
  /** The response being made, if any; `response.done` is its only reliable end. @type {string | null} */
  active = null;
  /** Items whose sound is still coming, with their response. @type {Map<string, string>} */ #open = new Map();
  /** Items and responses that were interrupted. @type {Set<string>} */ #cut = new Set();

  /** @param {string} id */
  created(id) { this.active = id || 'unnamed'; }

  /** @param {Record<string, any>} event @returns {boolean} it belongs to an interrupted answer */
  isCut(event) { return this.#cut.has(event.item_id) || this.#cut.has(event.response_id); }

  /** @param {Record<string, any>} event a piece of sound @returns {boolean} false: it belongs to an interrupted answer */
  takes(event) {
    if (this.isCut(event)) return false;
    this.#open.set(event.item_id, event.response_id ?? this.active ?? '');
    return true;
  }

  /** The sound of an item is complete. @param {string} item */
  complete(item) { this.#open.delete(item); }

  /** The response is over, however it went. @param {string} id @returns {string[]} items that got no end of their own */
  done(id) {
    if (!id || this.active === id || this.active === 'unnamed') this.active = null;
    const left = [...this.#open].filter(([, response]) => response === id || response === '').map(([item]) => item);
    for (const item of left) this.#open.delete(item);
    return left;
  }

  /** What is under way counts no more. @returns {string[]} items whose sound was still coming */
  cut() {
    const items = [...this.#open.keys()];
    this.drop(this.active ? [...items, this.active] : items);
    this.#open.clear();
    return items;
  }

  /** Nothing of these items or responses counts any more. @param {string[]} ids */
  drop(ids) {
    for (const id of ids) this.#cut.add(id);
    for (const id of this.#cut) {
      if (this.#cut.size <= MOST_REMEMBERED) return;
      this.#cut.delete(id);
    }
  }

  /** The connection is gone: no `response.done` will come. */
  lost() {
    this.active = null;
    this.#open.clear();
  }
}
