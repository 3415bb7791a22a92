// @ts-check
/**
 * The conversation on screen.
 *
 * Words that are still coming are hidden from screen readers; a finished sentence takes their place as a new node, so
 * that a live log announces it once. The log is silent unless asked: the agent is already heard, and a screen reader
 * would talk over it and into the microphone.
 *
 * @typedef {import('/client/lib/voice-client.js').Caption} Caption
 */
import { byId, make } from './dom.js';

/** A long day of talking; older turns leave the page, not the server. */
const MOST_TURNS = 400;
/** Close enough to the end to count as following along, px. */
const NEAR_END = 80;

export class CaptionsView {
  #log = byId('captions', HTMLElement);
  #empty = byId('empty', HTMLElement);
  /** @type {Map<string, {node: HTMLElement, caption: Caption}>} */ #turns = new Map();
  #following = true;
  agentName = 'Agent';

  constructor() {
    this.#log.addEventListener('scroll', () => { this.#following = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_END; });
    // A problem or a button that takes room must not hide the newest words.
    new ResizeObserver(() => this.#follow()).observe(this.#log);
  }

  #follow() { if (this.#following) this.#log.scrollTop = this.#log.scrollHeight; }

  get isEmpty() { return this.#turns.size === 0; }

  /** @param {Caption} caption */
  show(caption) {
    const old = this.#turns.get(caption.id);
    if (caption.final && !caption.text) {
      old?.node.remove();
      this.#turns.delete(caption.id);
      return;
    }
    this.#empty.hidden = true;
    if (old && !caption.final && !old.caption.final) {
      this.#fill(old.node, caption);
      old.caption = caption;
    } else {
      const node = this.#draw(caption);
      if (old) old.node.replaceWith(node); else this.#log.append(node);
      this.#turns.set(caption.id, { node, caption });
      this.#trim();
    }
    this.#follow();
  }

  /** @param {Caption} caption @returns {HTMLElement} */
  #draw(caption) {
    const name = caption.who === 'you' ? 'You' : this.agentName;
    const node = make('div', `turn ${caption.who}`, make('p', 'who', name), make('p', 'said'));
    node.classList.toggle('partial', !caption.final);
    if (!caption.final) node.setAttribute('aria-hidden', 'true');
    this.#fill(node, caption);
    if (caption.interrupted) node.append(make('p', 'mark', 'Interrupted'));
    return node;
  }

  /** @param {HTMLElement} node @param {Caption} caption */
  #fill(node, { text, interrupted, heard }) {
    const said = /** @type {HTMLElement} */ (node.querySelector('.said'));
    const cut = interrupted ? wordEnd(text, heard) : text.length;
    said.replaceChildren(text.slice(0, cut) || (interrupted ? '' : '…'));
    if (cut < text.length) said.append(make('span', 'unheard', text.slice(cut)));
  }

  #trim() {
    if (this.#turns.size <= MOST_TURNS) return;
    const [id, { node }] = /** @type {[string, {node: HTMLElement}]} */ (this.#turns.entries().next().value);
    node.remove();
    this.#turns.delete(id);
  }

  /** A line between two conversations. @param {string} words */
  divide(words) { if (!this.isEmpty) this.#log.append(make('p', 'divider', words)); }

  /** @param {boolean} on */
  announce(on) { this.#log.setAttribute('aria-live', on ? 'polite' : 'off'); }

  clear() {
    this.#turns.clear();
    this.#log.replaceChildren(this.#empty);
    this.#empty.hidden = false;
  }

  /** The finished turns as text, one line each, in the order shown. */
  asText() {
    const order = [...this.#turns.values()].filter(({ caption }) => caption.final);
    order.sort((a, b) => (a.node.compareDocumentPosition(b.node) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
    return order.map(({ caption }) => `${caption.who === 'you' ? 'You' : this.agentName}: ${caption.text}${caption.interrupted ? ' (interrupted)' : ''}`).join('\n');
  }
}

/** Where the word around that share of the text ends. @param {string} text @param {number} share 0..1 */
function wordEnd(text, share) {
  const at = Math.round(text.length * share);
  if (at <= 0 || at >= text.length) return Math.max(0, Math.min(at, text.length));
  const space = text.indexOf(' ', at);
  return space < 0 ? text.length : space;
}
