// @ts-check
/**
 * The sign-in token: from the address, from an earlier load of this tab, or pasted.
 *
 * A token behind # never reaches a server log. It is taken out of the address at once, so that it is in no bookmark,
 * history entry or screen picture, and kept for this tab only.
 */
import { byId } from './dom.js';

const KEPT_AS = 'voice-token';

export class SignIn {
  #form = byId('sign-in', HTMLFormElement);
  #words = byId('sign-in-words', HTMLElement);
  #field = byId('token', HTMLInputElement);
  #askWords = this.#words.textContent ?? '';

  /** @param {() => void} ready a token is there, or a new one */
  constructor(ready) {
    this.token = '';
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      const token = this.#field.value.trim();
      if (!token) return;
      this.#field.value = '';
      this.#keep(token);
      this.#form.hidden = true;
      ready();
    });
    addEventListener('hashchange', () => { if (this.#fromAddress()) { this.#form.hidden = true; ready(); } });
    if (!this.#fromAddress()) this.token = this.#kept();
  }

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
    this.token = token;
    try { sessionStorage.setItem(KEPT_AS, token); } catch { /* storage may be switched off: the token lasts until a reload */ }
  }

  #kept() { try { return sessionStorage.getItem(KEPT_AS) ?? ''; } catch { return ''; } }

  /** Ask for a token. @param {string} [why] what happened to the old one; without it the page just asks */
  ask(why) {
    if (why) this.#keep('');
    this.#words.textContent = why ? `${why} Sign in again in your app, or paste a new token here.` : this.#askWords;
    this.#form.hidden = false;
  }
}
