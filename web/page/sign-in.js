// @ts-check
/**
 * Who talks: somebody with an account, or the bearer of a token from the address, an earlier load of this tab, or the
 * clipboard.
 *
 * A token behind # never reaches a server log. It is taken out of the address at once, so that it is in no bookmark,
 * history entry or screen picture, and kept for this tab only. It counts before an account that is signed in.
 */
import { Account } from './account.js';
import { AccountForm } from './account-form.js';
import { byId } from './dom.js';

const KEPT_AS = 'voice-token';

export class SignIn {
  #token = '';
  #email = '';
  #account = Account.ofThisPage();
  /** @type {AccountForm | null} */ #accountForm = null;
  #form = byId('sign-in', HTMLFormElement);
  #words = byId('sign-in-words', HTMLElement);
  #field = byId('token', HTMLInputElement);
  #card = byId('account-card', HTMLElement);
  #who = byId('who', HTMLElement);
  #leave = byId('sign-out', HTMLButtonElement);
  #askWords = this.#words.textContent ?? '';

  /**
   * @param {() => void} ready somebody is signed in, or somebody else
   * @param {() => void} left nobody is any more
   */
  constructor(ready, left) {
    this.ready = ready;
    this.left = left;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      const token = this.#field.value.trim();
      if (!token) return;
      this.#field.value = '';
      this.#keep(token);
      this.#came();
    });
    addEventListener('hashchange', () => { if (this.#fromAddress()) this.#came(); });
    if (!this.#fromAddress()) this.#token = this.#kept();
    if (this.#account) this.#offerAccount(this.#account);
  }

  /** @param {Account} account */
  #offerAccount(account) {
    const form = this.#accountForm = new AccountForm(account, () => this.#came());
    account.changed = (email) => {
      this.#email = email ?? '';
      this.#show();
      if (email !== null) {
        // Signed in in another tab, or by the link of an e-mail.
        if (form.isOpen && !form.isBusy) this.#came();
        return;
      }
      // Signed out, here or in another tab, or a session that cannot be refreshed any more.
      if (!this.#token && !this.#card.hidden) { this.left(); this.ask(); }
    };
    this.#leave.addEventListener('click', () => void this.#signOut(account));
  }

  /** @param {Account} account */
  async #signOut(account) {
    this.#leave.disabled = true;
    this.#keep('');
    await account.signOut();
    this.#leave.disabled = false;
    if (!this.#card.hidden) { this.left(); this.ask(); }
  }

  #came() {
    this.#form.hidden = true;
    this.#accountForm?.close();
    this.ready();
  }

  /** A token that is good right now; empty when nobody is signed in. @returns {Promise<string>} */
  async token() {
    const token = this.#token || await this.#account?.token() || '';
    this.#card.hidden = !this.#account || !token;
    this.#show();
    return token;
  }

  #show() { this.#who.textContent = this.#token ? 'Signed in by the token in the address.' : this.#email; }

  #fromAddress() {
    const fragment = new URLSearchParams(location.hash.slice(1));
    const token = fragment.get('token');
    if (!token) return false;
    this.#keep(token);
    fragment.delete('token');
    const rest = String(fragment);
    history.replaceState(null, '', location.pathname + location.search + (rest ? `#${rest}` : ''));
    return true;
  }

  /** @param {string} token */
  #keep(token) {
    this.#token = token;
    try { sessionStorage.setItem(KEPT_AS, token); } catch { /* storage may be switched off: the token lasts until a reload */ }
  }

  #kept() { try { return sessionStorage.getItem(KEPT_AS) ?? ''; } catch { return ''; } }

  /** Ask who it is. @param {string} [why] what happened to the old sign-in; without it the page just asks */
  ask(why) {
    const hadToken = Boolean(this.#token);
    if (why) this.#keep('');
    this.#card.hidden = true;
    if (this.#accountForm) {
      this.#accountForm.open(why ? `${why} Sign in again.` : '');
      if (why && !hadToken) void this.#account?.signOut();
      return;
    }
    this.#words.textContent = why ? `${why} Sign in again in your app, or paste a new token here.` : this.#askWords;
    this.#form.hidden = false;
  }
}
