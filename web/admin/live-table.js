// @ts-check
/** The live table. Rows are kept and changed in place: whoever stands on a button stays there. */
import { byId, make } from '../page/dom.js';
import { age, delay, money, short, SPEAKS } from './words.js';

/** @typedef {import('./server.js').LiveRow} LiveRow */

/** Speech has an RMS of 0.02 to 0.3; the square root brings it to where the eye expects it. @param {number} level */
const shape = (level) => Math.min(1, Math.sqrt(level) * 1.5);

/** @param {string} label */
function meter(label) {
  const node = make('meter', '');
  node.min = 0;
  node.max = 1;
  node.setAttribute('aria-label', label);
  return node;
}

class Row {
  #agent = make('span', 'name');
  #about = make('span', 'fine');
  #channel = make('td', '');
  #speaks = make('td', 'speaks');
  #person = meter('Level of the person');
  #voice = meter('Level of the agent');
  #age = make('td', 'number');
  #turns = make('td', 'number');
  #delay = make('td', 'number');
  #cost = make('td', 'number');

  /** @param {(row: LiveRow) => void} open @param {(row: LiveRow) => void} end */
  constructor(open, end) {
    /** @type {LiveRow | null} */ this.row = null;
    this.open = make('button', 'quiet', 'Open');
    this.end = make('button', 'quiet bad', 'End');
    this.open.type = this.end.type = 'button';
    this.open.addEventListener('click', () => { if (this.row) open(this.row); });
    this.end.addEventListener('click', () => { if (this.row) end(this.row); });
    const head = make('th', '', this.#agent, this.#about);
    head.scope = 'row';
    this.node = make('tr', '', head, this.#channel, this.#speaks, make('td', '', this.#person),
      make('td', '', this.#voice), this.#age, this.#turns, this.#delay, this.#cost,
      make('td', 'actions', this.open, this.end));
    for (const [cell, name] of /** @type {[HTMLElement, string][]} */ ([[this.#channel, 'Channel'], [this.#speaks, 'Speaks'],
      [/** @type {HTMLElement} */ (this.#person.parentElement), 'Person'], [/** @type {HTMLElement} */ (this.#voice.parentElement), 'Agent'],
      [this.#age, 'Age'], [this.#turns, 'Turns'], [this.#delay, 'Delay'], [this.#cost, 'Cost']])) cell.dataset.name = name;
  }

  /** @param {LiveRow} row @param {boolean} isOpen */
  show(row, isOpen) {
    this.row = row;
    this.#agent.textContent = row.agent;
    this.#about.textContent = `${short(row.conversation_id)} · ${row.state === 'live' ? row.voice : row.state}`;
    this.#channel.textContent = row.channel;
    this.#speaks.textContent = SPEAKS[row.speaks];
    this.#speaks.dataset.speaks = row.speaks;
    this.#person.value = shape(row.level_in);
    this.#voice.value = shape(row.level_out);
    this.#age.textContent = age(row.age_s);
    this.#turns.textContent = String(row.turns);
    this.#delay.textContent = delay(row.last_audio_ms);
    this.#cost.textContent = money(row.cost_usd);
    this.open.setAttribute('aria-label', `Open the session of ${row.agent}, ${short(row.conversation_id)}`);
    this.end.setAttribute('aria-label', `End the session of ${row.agent}, ${short(row.conversation_id)}`);
    this.open.setAttribute('aria-pressed', String(isOpen));
  }
}

export class LiveTable {
  /** @type {Map<string, Row>} */ #rows = new Map();
  #body = byId('live-rows', HTMLElement);
  #empty = byId('live-empty', HTMLElement);
  #scroll = byId('live-scroll', HTMLElement);

  /** @param {(row: LiveRow) => void} open @param {(row: LiveRow) => void} end */
  constructor(open, end) {
    this.open = open;
    this.end = end;
  }

  /** @param {LiveRow[]} rows @param {string} opened */
  show(rows, opened) {
    const there = new Set(rows.map((row) => row.connection_id));
    for (const [id, row] of this.#rows) {
      if (!there.has(id)) { row.node.remove(); this.#rows.delete(id); }
    }
    for (const told of rows) {
      let row = this.#rows.get(told.connection_id);
      if (!row) {
        row = new Row(this.open, this.end);
        this.#rows.set(told.connection_id, row);
        this.#body.append(row.node);
      }
      row.show(told, told.conversation_id === opened);
    }
    this.#empty.hidden = rows.length > 0;
    this.#scroll.hidden = rows.length === 0;
  }
}
