// @ts-check
/** The buttons and the text box: start, end, mute, push to talk, say. */
import { byId } from './dom.js';
import { listenToKeys } from './keys.js';

/**
 * @typedef {import('/client/lib/voice-client.js').VoiceClient} VoiceClient
 * @typedef {import('/client/lib/voice-client.js').Activity} Activity
 * @typedef {import('/client/lib/voice-client.js').Problem} Problem
 *
 * @typedef {object} Needs
 * @property {() => string} microphone the chosen device
 * @property {(problem: Problem | null) => void} problem
 */

export class Controls {
  #start = byId('start', HTMLButtonElement);
  #startWords = byId('start-words', HTMLElement);
  #end = byId('end', HTMLButtonElement);
  #mute = byId('mute', HTMLButtonElement);
  #ptt = byId('ptt', HTMLButtonElement);
  #hold = byId('hold', HTMLButtonElement);
  #holdWords = byId('hold-words', HTMLElement);
  #interrupt = byId('interrupt', HTMLButtonElement);
  #text = byId('text', HTMLInputElement);
  #send = byId('send', HTMLButtonElement);
  #fresh = byId('fresh', HTMLButtonElement);
  #agent = byId('agent', HTMLSelectElement);
  #voice = byId('voice', HTMLSelectElement);
  #ready = false;

  /** @param {VoiceClient} client @param {Needs} needs */
  constructor(client, needs) {
    this.client = client;
    this.needs = needs;
    this.#start.addEventListener('click', (event) => void this.#talk(event.detail === 0));
    this.#end.addEventListener('click', () => void this.#stop());
    this.#mute.addEventListener('click', () => this.#toggleMute());
    this.#ptt.addEventListener('click', () => { client.setPushToTalk(!client.pushToTalk); this.show(); });
    this.#interrupt.addEventListener('click', () => client.interrupt());
    this.#hold.addEventListener('pointerdown', (event) => { this.#hold.setPointerCapture(event.pointerId); this.#press(true); });
    for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) this.#hold.addEventListener(name, () => this.#press(false));
    this.#hold.addEventListener('contextmenu', (event) => event.preventDefault());       // a long touch is not a menu here
    byId('typed', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.#text.value.trim();
      if (text) this.say(text);
      this.#text.value = '';
    });
    listenToKeys(byId('keys', HTMLInputElement), this.#hold, {
      hold: (down) => this.#press(down),
      mute: () => { if (!this.#mute.disabled) this.#toggleMute(); },
      interrupt: () => { if (!this.#interrupt.hidden) client.interrupt(); },
      holds: () => !this.#hold.hidden && !this.#hold.disabled,
    });
  }

  get #active() { return this.client.state !== 'idle' && this.client.state !== 'ended'; }

  /** Agents are known (or not): the page can be used. @param {boolean} ready */
  ready(ready) {
    this.#ready = ready;
    this.show();
  }

  /** Say it; without a conversation one is begun that needs no microphone. @param {string} text */
  say(text) {
    if (!this.#ready) return;
    this.needs.problem(null);
    if (!this.#active) void this.client.startText();
    this.client.say(text);
  }

  /** @param {boolean} byKeyboard */
  async #talk(byKeyboard) {
    this.needs.problem(null);
    const going = this.client.start({ deviceId: this.needs.microphone() });
    this.show();
    await going;
    this.show();
    // The start button is gone: a keyboard user must not be thrown back to the top. Space on these does no harm.
    if (byKeyboard && this.client.state === 'live' && document.activeElement === document.body) (this.#hold.hidden ? this.#mute : this.#hold).focus();
  }

  async #stop() {
    await this.client.stop();
    if (document.activeElement === document.body) this.#start.focus();
  }

  #toggleMute() {
    this.client.setMuted(!this.client.muted);
    this.#mute.setAttribute('aria-pressed', String(this.client.muted));
  }

  /** @param {boolean} down */
  #press(down) {
    if (this.#hold.disabled) return;
    this.client.hold(down);
    this.#hold.setAttribute('aria-pressed', String(this.client.holding));
    this.#holdWords.textContent = this.client.holding ? 'Listening; let go to send' : 'Hold to talk';
  }

  /** @param {Activity} activity */
  activity(activity) { this.#interrupt.hidden = activity !== 'speaking' && activity !== 'thinking'; }

  /** Bring the buttons in line with the client. */
  show() {
    const { client } = this;
    const active = this.#active;
    const talking = active && client.hasMicrophone;
    const starting = client.state === 'connecting';
    this.#start.hidden = talking && !starting;
    this.#start.disabled = !this.#ready || starting;
    this.#startWords.textContent = starting ? 'Connecting' : active ? 'Use microphone' : 'Start talking';
    this.#end.hidden = !active;
    this.#mute.disabled = !talking;
    this.#hold.hidden = !(talking && client.pushToTalk);
    this.#hold.disabled = client.state !== 'live';
    this.#ptt.setAttribute('aria-pressed', String(client.pushToTalk));
    this.#text.disabled = this.#send.disabled = !this.#ready;
    this.#agent.disabled = active || !this.#ready;
    this.#voice.disabled = !this.#ready || starting;
    this.#fresh.disabled = !this.#ready;
    if (this.#hold.disabled) this.#holdWords.textContent = 'Hold to talk';
  }
}
