// @ts-check
/** What the telephone shows: the number, who is called, the timer, the keys pressed, how it ended. */
import { byId, make } from '../page/dom.js';

/** @typedef {import('../phone.js').Phase} Phase */

/** @type {Record<Phase, {words: string, state: string}>} the words, and the look of the page's state */
const PHASES = {
  idle: { words: 'Not in a call', state: 'idle' },
  waiting: { words: 'Opening the microphone', state: 'connecting' },
  dialling: { words: 'Dialling', state: 'connecting' },
  ringing: { words: 'Ringing', state: 'connecting' },
  in_call: { words: 'In call', state: 'live' },
};
/** Keys of a call that stay visible. */
const MOST_KEYS = 18;

export class Screen {
  #state = byId('state', HTMLElement);
  #stateWords = byId('state-words', HTMLElement);
  #dialling = byId('dialling', HTMLElement);
  #calling = byId('calling', HTMLElement);
  #number = byId('number', HTMLInputElement);
  #who = byId('who', HTMLElement);
  #lineNumber = byId('line-number', HTMLElement);
  #phase = byId('phase', HTMLElement);
  #clock = byId('clock', HTMLElement);
  #keys = byId('pressed', HTMLElement);
  #outcome = byId('outcome', HTMLElement);
  #notice = byId('notice', HTMLElement);
  #alerts = byId('alerts', HTMLElement);
  #delete = byId('delete', HTMLButtonElement);
  #since = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #ticker;

  constructor() {
    this.#number.addEventListener('input', () => this.#changed());
    this.#delete.addEventListener('click', () => { this.#number.value = this.#number.value.trimEnd().slice(0, -1); this.#changed(); });
  }

  get number() { return this.#number.value; }

  #changed() {
    this.#delete.disabled = !this.#number.value || Boolean(this.#dialling.hidden);
    this.#outcome.textContent = '';
  }

  /** @param {string} number */
  fill(number) { this.#number.value = this.pretty(number); this.#changed(); }

  /** A key of the pad, while nobody is called. @param {string} key */
  type(key) {
    if (this.#number.value.length >= this.#number.maxLength) return;
    this.#number.value += key;
    this.#changed();
  }

  /** A key of the pad, in a call. @param {string} key */
  pressed(key) { this.#keys.textContent = `${this.#keys.textContent}${key}`.slice(-MOST_KEYS); }

  /** @param {string} number E.164 @param {string} name empty: unknown */
  called(number, name) {
    this.fill(number);
    this.#who.textContent = name || this.pretty(number);
    this.#lineNumber.textContent = name ? this.pretty(number) : '';
    this.#keys.textContent = '';
  }

  /** @param {Phase} phase */
  phase(phase) {
    const { words, state } = PHASES[phase];
    this.#state.dataset.state = state;
    this.#stateWords.textContent = words;
    this.#phase.textContent = words;
    this.#dialling.hidden = phase !== 'idle';
    this.#calling.hidden = phase === 'idle';
    clearInterval(this.#ticker);
    this.#clock.textContent = '';
    if (phase === 'in_call') {
      this.#since = performance.now();
      this.#ticker = setInterval(() => this.#tick(), 250);
      this.#tick();
    }
    if (phase === 'idle') this.#keys.textContent = '';
    this.#changed();
  }

  #tick() {
    const s = Math.floor((performance.now() - this.#since) / 1000);
    this.#clock.textContent = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`;
  }

  /** Take away what was told of the last call. */
  forget() {
    this.#outcome.textContent = '';
    this.#alerts.replaceChildren();
    this.notice('');
  }

  /** How a call ended, or what is missing; what must be mended is an alert. @param {import('./words.js').Told} told */
  tell(told) {
    this.#alerts.replaceChildren();
    this.#outcome.textContent = told.advice ? '' : told.message;
    if (!told.advice) return;
    const parts = [make('p', 'what', told.message), make('p', 'advice', told.advice)];
    if (told.detail) parts.push(make('p', 'fine', told.detail));
    this.#alerts.append(make('div', told.bad ? 'card-inside problem' : 'card-inside said-no', ...parts));
  }

  /** @param {string} words empty takes it away */
  notice(words) {
    this.#notice.hidden = !words;
    this.#notice.textContent = words;
  }

  /** A number with gaps, for the eye: those of North America as they are written there. @param {string} number */
  pretty(number) {
    const american = /^\+1(\d{3})(\d{3})(\d{4})$/.exec(number);
    return american ? `+1 ${american[1]} ${american[2]} ${american[3]}` : number;
  }
}
