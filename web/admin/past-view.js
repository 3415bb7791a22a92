// @ts-check
/** Past conversations: search, list, export. */
import { byId, make } from '../page/dom.js';
import { ask, ServerError } from './server.js';
import { clock, money, short } from './words.js';

/** @typedef {import('./server.js').Past} Past */

const PAGE = 25;

export class PastView {
  #rows = byId('past-rows', HTMLElement);
  #note = byId('past-note', HTMLElement);
  #more = byId('past-more', HTMLButtonElement);
  #status = byId('past-status', HTMLSelectElement);
  #before = '';

  /** @param {(past: Past) => void} open */
  constructor(open) {
    this.open = open;
    byId('past-search', HTMLFormElement).addEventListener('submit', (event) => { event.preventDefault(); void this.search(); });
    this.#more.addEventListener('click', () => void this.#load());
  }

  /** Offer the end reasons that are known. @param {string[]} reasons */
  offer(reasons) {
    for (const reason of reasons) {
      if (![...this.#status.options].some((option) => option.value === reason)) this.#status.add(new Option(reason, reason));
    }
  }

  async search() {
    this.#before = '';
    this.#rows.replaceChildren();
    await this.#load();
  }

  async #load() {
    const query = new URLSearchParams({ limit: String(PAGE) });
    for (const [name, value] of [['id', byId('past-id', HTMLInputElement).value.trim()], ['agent_id', byId('past-agent', HTMLInputElement).value.trim()],
      ['status', this.#status.value], ['before', this.#before]]) if (value) query.set(name, value);
    try {
      const found = /** @type {{conversations: Past[]}} */ (await ask(`past?${query}`)).conversations;
      this.offer(found.flatMap((past) => past.end_reason ?? []));
      this.#rows.append(...found.map((past) => this.#row(past)));
      this.#before = found.at(-1)?.last_active_at ?? this.#before;
      this.#more.hidden = found.length < PAGE;
      const shown = this.#rows.children.length;
      this.#note.textContent = shown ? `${shown} shown, those active last first.` : 'No conversation fits.';
    } catch (error) {
      this.#note.textContent = error instanceof ServerError ? `${error.message}.` : String(error);
    }
  }

  /** @param {Past} past */
  #row(past) {
    const open = make('button', 'quiet', 'Open');
    open.type = 'button';
    open.setAttribute('aria-label', `Open the conversation with ${past.agent_name}, ${short(past.id)}`);
    open.addEventListener('click', () => this.open(past));
    const head = make('th', '', make('time', '', clock(past.last_active_at)), make('span', 'fine', short(past.id)));
    head.scope = 'row';
    const cells = /** @type {[string, string, string][]} */ ([['Agent', '', past.agent_name], ['Channel', '', past.channel],
      ['Status', '', past.end_reason ?? 'open'], ['Turns', 'number', String(past.turn_count)], ['Cost', 'number', money(past.cost_usd)]])
      .map(([name, kind, text]) => { const cell = make('td', kind, text); cell.dataset.name = name; return cell; });
    return make('tr', '', head, ...cells, make('td', 'actions', open));
  }
}
