// @ts-check
/**
 * The telephone: wires the line to the handset and both to the document.
 *
 * Address: `?to=` fills in a number; `?raw=1` switches the browser's echo, noise and gain processing off (for measurements).
 *
 * @typedef {'idle' | 'waiting' | 'dialling' | 'ringing' | 'in_call'} Phase waiting: for the microphone
 */
import { WakeLock } from '/client/lib/wake-lock.js';
import { byId, make } from './page/dom.js';
import { LevelStrip } from './page/level-strip.js';
import { Handset } from './phone/handset.js';
import { listenToKeypad } from './phone/keypad.js';
import { Line, readLine } from './phone/line.js';
import { Screen } from './phone/screen.js';
import { Tones } from './phone/tones.js';
import { WireView } from './phone/wire-view.js';
import { badNumber, endWords, HAPPENINGS, lostWords, noLineWords, silentWords } from './phone/words.js';

/** @typedef {import('./phone/line.js').Listed} Listed */

/** A second click of a double click must not undo the first. */
const SETTLE_MS = 500;

const query = new URLSearchParams(location.search);
const processing = query.get('raw') === '1' ? { echoCancellation: false, noiseSuppression: false, autoGainControl: false } : {};
const callButton = byId('call', HTMLButtonElement);
const hangUpButton = byId('hang-up', HTMLButtonElement);
const muteButton = byId('mute', HTMLButtonElement);
const useMicrophone = byId('use-microphone', HTMLInputElement);
const micStrip = new LevelStrip(byId('mic-strip', HTMLCanvasElement), byId('mic-level', HTMLMeterElement));
const lineStrip = new LevelStrip(byId('agent-strip', HTMLCanvasElement), byId('agent-level', HTMLMeterElement));
const screen = new Screen();
const wire = new WireView();
const tones = new Tones();
const wakeLock = new WakeLock();

class Phone {
  /** @type {Phase} */ phase = 'idle';
  /** @type {Handset | null} */ handset = null;
  /** @type {Line | null} */ line = null;
  /** @type {Map<string, Listed>} */ listed = new Map();
  #calls = 0;
  #since = 0;

  /** @param {Phase} phase */
  #be(phase) {
    this.phase = phase;
    this.#since = phase === 'waiting' ? performance.now() : this.#since;
    const busy = phase !== 'idle';
    // What had the focus may be hidden now: the person goes on where the call goes on.
    const moves = busy ? callButton.hidden === false && document.activeElement !== document.body : document.activeElement === hangUpButton;
    callButton.hidden = busy;
    hangUpButton.hidden = !busy;
    if (moves) (busy ? hangUpButton : callButton).focus({ preventScroll: true });
    screen.phase(phase);
    tones.ring(phase === 'dialling' || phase === 'ringing');
    if (phase === 'in_call') wakeLock.hold();
    if (!busy) wakeLock.release();
    this.#showMute();
  }

  #showMute() { muteButton.disabled = this.phase === 'idle' || !this.handset?.hasMicrophone; }

  /** Call a number; call it from a click or a key. @param {string} typed as people write numbers */
  async call(typed) {
    if (this.phase !== 'idle') return;
    const number = asE164(typed);
    screen.forget();
    if (!number) { screen.tell(badNumber); return; }
    const call = ++this.#calls;
    const isOver = () => call !== this.#calls || this.phase === 'idle';
    this.line?.close();
    wire.clear();
    screen.called(number, this.listed.get(number)?.name ?? '');
    mute(false);
    this.#be('waiting');
    const handset = this.handset = this.#newHandset(call);
    try {
      await handset.listen();
      if (useMicrophone.checked && !isOver()) await handset.speak(processing).catch((error) => { if (!isOver()) screen.tell(silentWords(error)); });
      if (isOver()) { await handset.close(); return; }
      screen.notice('');
      this.#be('dialling');
      const info = await readLine();
      if (isOver()) return;
      this.line = new Line(info, number, this.#ears(handset, call));
    } catch (error) {
      if (!isOver()) this.#end(noLineWords(error));
    }
  }

  /** @param {number} call */
  #newHandset(call) {
    return new Handset({
      say: (audio) => { if (call === this.#calls) this.line?.say(audio); },
      level: (mic, agent) => { micStrip.push(mic); lineStrip.push(agent); },
      happened: (what) => { if (call === this.#calls) { screen.notice(HAPPENINGS[what]); this.#showMute(); } },
    });
  }

  /** @param {Handset} handset @param {number} call @returns {import('./phone/line.js').LineEars} */
  #ears(handset, call) {
    const live = (/** @type {() => void} */ act) => { if (call === this.#calls && this.phase !== 'idle') act(); };
    return {
      ringing: () => live(() => this.#be('ringing')),
      answered: () => live(() => this.#be('in_call')),
      ended: (ended) => live(() => this.#end(endWords(ended))),
      lost: (opened) => live(() => this.#end(lostWords(opened))),
      seen: (seen) => wire.seen(seen),
      entry: (entry) => { wire.entry(entry); if (entry.event === 'clear') handset.forget(); },
      sound: (audio) => handset.hear(audio),
    };
  }

  /** The person hangs up. */
  hangUp() {
    if (this.phase === 'idle' || performance.now() - this.#since < SETTLE_MS) return;
    const wasAnswered = this.phase === 'in_call';
    this.line?.hangUp();
    this.#end({ message: wasAnswered ? 'You hung up.' : 'You hung up before it was answered.', advice: '', detail: '', bad: false });
  }

  /** @param {import('./phone/words.js').Told} told */
  #end(told) {
    this.#be('idle');
    screen.notice('');
    screen.tell(told);
    void this.handset?.close();
  }

  /** @param {string} key */
  press(key) {
    tones.key(key);
    if (this.phase === 'idle') { screen.type(key); return; }
    screen.pressed(key);
    this.line?.press(key);
  }
}

/** The number as Twilio writes it; empty if nobody can have it. @param {string} typed */
function asE164(typed) {
  const bare = typed.replace(/[\s().\-/]/g, '').replace(/^00/, '+');
  const number = bare.startsWith('+') ? bare : `+${bare}`;
  return /^\+[0-9]{3,15}$/.test(number) ? number : '';
}

/** @param {boolean} on */
function mute(on) {
  muteButton.setAttribute('aria-pressed', String(on));
  phone.handset?.mute(on);
}

const phone = new Phone();
// For the browser's console, and for tests.
Object.assign(globalThis, { phone });

callButton.addEventListener('click', () => void phone.call(screen.number));
hangUpButton.addEventListener('click', () => phone.hangUp());
muteButton.addEventListener('click', () => mute(muteButton.getAttribute('aria-pressed') !== 'true'));
byId('dialling', HTMLFormElement).addEventListener('submit', (event) => { event.preventDefault(); void phone.call(screen.number); });
listenToKeypad(byId('pad', HTMLElement), byId('shortcuts', HTMLInputElement), (key) => phone.press(key));
addEventListener('pointerdown', () => phone.handset?.wake());
addEventListener('pagehide', () => phone.line?.close());

/** @param {Listed} listed */
function directoryRow(listed) {
  const avatar = make('span', 'avatar', listed.name.slice(0, 1));
  avatar.ariaHidden = 'true';
  const sign = callButton.querySelector('svg')?.cloneNode(true) ?? '';
  const button = make('button', 'entry', avatar, make('span', 'unseen', 'Call '),
    make('span', 'whom', make('span', 'name', listed.name), make('span', 'fine', screen.pretty(listed.number))), sign);
  button.type = 'button';
  button.addEventListener('click', () => {
    void phone.call(listed.number);
    byId('telephone', HTMLElement).scrollIntoView({ block: 'nearest' });
  });
  return make('li', '', button);
}

async function load() {
  const to = query.get('to');
  if (to) screen.fill(to);
  try {
    const { numbers } = await readLine();
    for (const listed of numbers) phone.listed.set(listed.number, listed);
    byId('directory', HTMLElement).replaceChildren(...numbers.map(directoryRow));
    byId('directory-empty', HTMLElement).hidden = numbers.length > 0;
  } catch (error) {
    screen.tell(noLineWords(error));
  }
}
void load();
