// @ts-check
/** One session opened: a live one, whose transcript grows, or a stored one. */
import { byId, make } from '../page/dom.js';
import { age, clock, delay, money, plain, size, SPEAKS } from './words.js';

/** @typedef {import('./server.js').LiveDetail} LiveDetail */
/** @typedef {import('./server.js').PastDetail} PastDetail */

/** @type {Record<string, string>} */
const ROLES = { user: 'Person', assistant: 'Agent', tool: 'Tool', system: 'System' };
/** @type {Record<string, string>} */
const STATUS = { growing: 'speaking', interrupted: 'interrupted', failed: 'not understood' };

/** @param {HTMLElement} list @param {[string, unknown][]} facts */
function define(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => make('div', '', make('dt', '', name), make('dd', '', plain(value)))));
}

/** @param {string} role @param {string} text @param {string} status */
function turn(role, text, status) {
  const who = make('span', 'who', ROLES[role] ?? role);
  const node = make('div', `turn ${role}`, who, make('span', 'said', text || '…'));
  if (STATUS[status]) node.append(make('span', 'fine', ` ${STATUS[status]}`));
  return node;
}

export class SessionView {
  #section = byId('session', HTMLElement);
  #title = byId('session-title', HTMLElement);
  #note = byId('session-note', HTMLElement);
  #facts = byId('session-facts', HTMLElement);
  #talk = byId('session-talk', HTMLElement);
  #events = byId('session-events', HTMLElement);
  #settings = byId('session-settings', HTMLElement);
  #beside = byId('session-beside', HTMLElement);
  #actions = byId('session-actions', HTMLElement);
  #shown = '';

  /** Show the section and go to it. @param {string} title @param {HTMLElement[]} actions */
  begin(title, actions) {
    this.#section.hidden = false;
    this.#title.textContent = title;
    this.#note.textContent = 'Loading';
    this.#actions.replaceChildren(...actions);
    for (const list of [this.#facts, this.#talk, this.#events, this.#settings]) list.replaceChildren();
    this.#shown = '';
    this.#section.focus();
  }

  hide() {
    this.#section.hidden = true;
  }

  /** @param {string} words */
  note(words) {
    this.#note.textContent = words;
  }

  /** A live session that is gone: what was seen stays. */
  gone() {
    this.note('This session has ended. Its transcript is below, under past conversations.');
    this.#actions.replaceChildren();
  }

  /** @param {LiveDetail} live */
  showLive(live) {
    this.#beside.hidden = false;
    this.note(`${live.state}, ${SPEAKS[live.speaks]} speaks`);
    define(this.#facts, [
      ['Conversation', live.conversation_id], ['Connection', live.connection_id], ['Agent', live.agent_id], ['User', live.user_id],
      ['Call', live.call_sid], ['Since', clock(live.since)], ['Age', age(live.age_s)], ['Turns', live.turns],
      ['First sound', delay(live.first_audio_ms)], ['Last delay', delay(live.last_audio_ms)], ['Cost', money(live.cost_usd)],
      ['In / out', `${size(live.bytes_in)} / ${size(live.bytes_out)}`], ['Dropped frames', live.dropped],
      ['Reconnects', live.reconnects], ['Worker', live.worker],
    ]);
    this.#say(live.transcript.map((said) => [said.role, said.text, said.status]));
    this.#events.replaceChildren(...[...live.events].reverse().map((event) => make('li', '', make('time', '', clock(event.at)),
      make('span', 'side', event.side), make('code', '', event.type), ...(event.times > 1 ? [make('span', 'fine', `× ${event.times}`)] : []))));
    define(this.#settings, Object.entries(live.settings).map(([name, value]) => [name.replaceAll('_', ' '), value]));
  }

  /** @param {PastDetail} past */
  showPast(past) {
    this.#beside.hidden = true;
    this.note(past.end_reason ?? 'open');
    define(this.#facts, [
      ['Conversation', past.id], ['Agent', past.agent_id], ['User', past.user_id], ['Call', past.call_sid],
      ['Began', clock(past.started_at)], ['Ended', past.ended_at ? clock(past.ended_at) : null], ['Turns', past.turn_count],
      ['Cost', money(past.cost_usd)],
    ]);
    this.#say(past.messages.map((message) => [message.role, message.role === 'tool' ? plain(message.metadata.name) : message.content, message.status]));
  }

  /** Write the turns; the view stays at the end unless somebody scrolled up. @param {[string, string, string][]} turns */
  #say(turns) {
    const told = JSON.stringify(turns);
    if (told === this.#shown) return;
    this.#shown = told;
    const atEnd = this.#talk.scrollHeight - this.#talk.scrollTop - this.#talk.clientHeight < 40;
    this.#talk.replaceChildren(...turns.map(([role, text, status]) => turn(role, text, status)));
    if (!turns.length) this.#talk.append(make('p', 'fine', 'Nothing was said yet.'));
    if (atEnd) this.#talk.scrollTop = this.#talk.scrollHeight;
  }
}
