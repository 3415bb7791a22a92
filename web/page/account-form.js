// @ts-check
/** The form with which a person signs in or makes an account. While it is open it has the stage for itself. */
import { AccountError } from './account.js';
import { byId } from './dom.js';

/** @typedef {import('./account.js').Account} Account */

const WORDS = {
  in: { title: 'Sign in to talk', action: 'Sign in', other: 'New here?', change: 'Create an account', password: 'current-password' },
  up: { title: 'Create an account', action: 'Create account', other: 'You have an account?', change: 'Sign in', password: 'new-password' },
};

export class AccountForm {
  #stage = byId('stage', HTMLElement);
  #panel = byId('account', HTMLElement);
  #form = byId('account-form', HTMLFormElement);
  #title = byId('account-title', HTMLElement);
  #note = byId('account-note', HTMLElement);
  #fault = byId('account-fault', HTMLElement);
  #email = byId('email', HTMLInputElement);
  #password = byId('password', HTMLInputElement);
  #hint = byId('password-hint', HTMLElement);
  #reveal = byId('reveal', HTMLInputElement);
  #action = byId('account-action', HTMLButtonElement);
  #other = byId('account-other', HTMLElement);
  #change = byId('account-change', HTMLButtonElement);
  /** @type {'in' | 'up'} */ #mode = 'in';

  /** @param {Account} account @param {() => void} done somebody is signed in */
  constructor(account, done) {
    this.account = account;
    this.done = done;
    this.#form.addEventListener('submit', (event) => { event.preventDefault(); void this.#submit(); });
    this.#change.addEventListener('click', () => { this.#show(this.#mode === 'in' ? 'up' : 'in'); this.#email.focus(); });
    this.#reveal.addEventListener('change', () => { this.#password.type = this.#reveal.checked ? 'text' : 'password'; });
    for (const field of [this.#email, this.#password]) field.addEventListener('input', () => this.#complain(''));
    this.#show('in');
  }

  get isOpen() { return !this.#panel.hidden; }
  get isBusy() { return this.#action.disabled; }

  /** @param {string} note why it is asked, empty when there is no reason to give */
  open(note) {
    this.#note.textContent = note;
    this.#note.hidden = !note;
    this.#panel.hidden = false;
    this.#stage.dataset.asks = 'account';
  }

  /** Close it, with nothing left in it for the next person. */
  close() {
    this.#email.value = this.#password.value = '';
    this.#reveal.checked = false;
    this.#password.type = 'password';
    this.#show('in');
    this.#panel.hidden = true;
    delete this.#stage.dataset.asks;
  }

  /** @param {'in' | 'up'} mode */
  #show(mode) {
    this.#mode = mode;
    const words = WORDS[mode];
    this.#title.textContent = words.title;
    this.#action.textContent = words.action;
    this.#other.textContent = words.other;
    this.#change.textContent = words.change;
    this.#password.autocomplete = /** @type {AutoFill} */ (words.password);
    this.#hint.hidden = mode === 'in';
    this.#complain('');
  }

  /** @param {string} sentence empty takes the last one away @param {HTMLInputElement} [field] at which it lies */
  #complain(sentence, field) {
    this.#fault.textContent = sentence;
    this.#fault.hidden = !sentence;
    for (const one of [this.#email, this.#password]) one.removeAttribute('aria-invalid');
    if (!field) return;
    field.setAttribute('aria-invalid', 'true');
    field.focus();
  }

  async #submit() {
    const email = this.#email.value.trim(), password = this.#password.value;
    // The browser's own balloons vanish, are not translated with the page and cannot be read twice.
    if (!/^\S+@\S+$/.test(email)) { this.#complain('Enter your e-mail address.', this.#email); return; }
    if (!password) { this.#complain('Enter a password.', this.#password); return; }
    this.#busy(true);
    try {
      if (this.#mode === 'in') await this.account.signIn(email, password);
      else if (!await this.account.signUp(email, password)) {
        this.#show('in');
        this.open(`Nearly done. Open the link in the e-mail sent to ${email}, then sign in here.`);
        return;
      }
      this.done();
    } catch (error) {
      if (!(error instanceof AccountError)) throw error;
      this.#complain(error.message, this.#password);
    } finally {
      this.#busy(false);
    }
  }

  /** @param {boolean} busy */
  #busy(busy) {
    this.#form.setAttribute('aria-busy', String(busy));
    this.#action.disabled = this.#change.disabled = busy;
    this.#action.textContent = busy ? 'One moment' : WORDS[this.#mode].action;
  }
}
