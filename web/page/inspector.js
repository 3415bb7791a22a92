// @ts-check
/**
 * Every event on the wire, for whoever builds on this server. Sound is summed up, the list is bounded, and nothing is
 * drawn while it is folded away.
 */
import { byId, make } from './dom.js';

/** Ten minutes of lively talk without the sound; each kept event is a small object. */
const MOST_EVENTS = 600;
/** A redraw takes a few ms; five a second is live enough to read. */
const REDRAW_MS = 200;
const AUDIO = new Set(['input_audio_buffer.append', 'response.audio.delta', 'response.output_audio.delta']);

/** @typedef {{way: 'sent' | 'received', at: string, type: string, event: Record<string, any>, pieces: number, bytes: number, node: HTMLElement | null}} Entry */

export class Inspector {
  #box = byId('inspector', HTMLDetailsElement);
  #list = byId('events', HTMLElement);
  #filter = byId('filter', HTMLInputElement);
  #audio = byId('show-audio', HTMLInputElement);
  #freeze = byId('freeze', HTMLButtonElement);
  #countWords = byId('event-count', HTMLElement);
  /** @type {Entry[]} */ #entries = [];
  #total = 0;
  #frozen = false;
  #due = false;

  constructor() {
    this.#box.addEventListener('toggle', () => this.#redraw());
    this.#filter.addEventListener('input', () => this.#redraw());
    this.#audio.addEventListener('change', () => this.#redraw());
    this.#freeze.addEventListener('click', () => {
      this.#frozen = !this.#frozen;
      this.#freeze.setAttribute('aria-pressed', String(this.#frozen));
      this.#redraw();
    });
    byId('clear', HTMLButtonElement).addEventListener('click', () => this.clear());
  }

  clear() {
    this.#entries = [];
    this.#total = 0;
    this.#list.replaceChildren();
    this.#redraw();
  }

  /** @param {'sent' | 'received'} way @param {Record<string, any>} event */
  add(way, event) {
    this.#total++;
    const sound = AUDIO.has(event.type);
    // Three quarters of base64 are bytes.
    const bytes = sound ? Math.floor((event.audio ?? event.delta ?? '').length * 0.75) : 0;
    const near = this.#stream(way, event);
    if (near) {
      near.pieces++;
      near.bytes += bytes;
      near.event = sound ? near.event : event;
      const words = near.node?.querySelector('.gist');
      if (words) words.textContent = gist(near);
    } else {
      this.#entries.push({ way, at: new Date().toTimeString().slice(0, 8), type: event.type, event: sound ? withoutSound(event) : event, pieces: 1, bytes, node: null });
      if (this.#entries.length > MOST_EVENTS) for (const old of this.#entries.splice(0, this.#entries.length - MOST_EVENTS)) old.node?.remove();
    }
    this.#soon();
  }

  /**
   * The entry this piece of a stream belongs to: sound up, sound down and words come interleaved.
   * @param {'sent' | 'received'} way @param {Record<string, any>} event @returns {Entry | undefined}
   */
  #stream(way, event) {
    if (!AUDIO.has(event.type) && !event.type.endsWith('.delta')) return undefined;
    return this.#entries.slice(-3).find((one) => one.type === event.type && one.way === way && one.event.item_id === event.item_id);
  }

  #soon() {
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => { this.#due = false; if (!this.#frozen) this.#redraw(); }, REDRAW_MS);
  }

  /** @param {Entry} entry */
  #wanted(entry) {
    if (AUDIO.has(entry.type) && !this.#audio.checked) return false;
    const text = this.#filter.value.trim().toLowerCase();
    return !text || entry.type.toLowerCase().includes(text) || JSON.stringify(entry.event).toLowerCase().includes(text);
  }

  #redraw() {
    this.#countWords.textContent = `${this.#total} event${this.#total === 1 ? '' : 's'}`;
    if (!this.#box.open) return;
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    let after = /** @type {ChildNode | null} */ (this.#list.firstChild);
    for (const entry of this.#entries) {
      if (!this.#wanted(entry)) { if (entry.node === after && after) after = after.nextSibling; entry.node?.remove(); entry.node = null; continue; }
      if (entry.node && entry.node === after) { after = after.nextSibling; continue; }
      entry.node ??= draw(entry);
      this.#list.insertBefore(entry.node, after);
    }
    if (atEnd && !this.#frozen) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

/** @param {Entry} entry @returns {HTMLElement} */
function draw(entry) {
  const row = make('details', entry.way, make('summary', '', make('span', 'at', entry.at),
    make('span', 'way', entry.way === 'sent' ? 'out' : 'in'),
    make('span', 'type', entry.type), make('span', 'gist', gist(entry))));
  row.addEventListener('toggle', () => {
    if (row.open && row.childElementCount === 1) row.append(make('pre', '', JSON.stringify(entry.event, null, 2)));
  });
  return row;
}

/** @param {Entry} entry @returns {string} */
function gist({ type, event, pieces, bytes }) {
  // 24 kHz PCM16 is 48,000 bytes a second.
  if (AUDIO.has(type)) return `× ${pieces} · ${(bytes / 48_000).toFixed(1)} s`;
  if (type.endsWith('.delta')) return `× ${pieces}`;
  if (type === 'error') return String(event.error?.code ?? '');
  return String(event.code ?? event.response?.status ?? event.item?.role ?? '');
}

/** @param {Record<string, any>} event @returns {Record<string, any>} */
function withoutSound(event) {
  const { audio, delta, ...rest } = event;
  const text = audio ?? delta ?? '';
  return { ...rest, [audio === undefined ? 'delta' : 'audio']: `(${text.length} characters of base64)` };
}
