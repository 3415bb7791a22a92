// @ts-check
/** State, activity, problems, notices, the countdown: everything that tells how it is going. */
import { byId, make } from './dom.js';

/**
 * @typedef {import('/client/lib/voice-client.js').VoiceState} VoiceState
 * @typedef {import('/client/lib/voice-client.js').Activity} Activity
 * @typedef {import('/client/lib/voice-client.js').Problem} Problem
 */

/** @type {Record<VoiceState, string>} */
const STATES = { idle: 'Not connected', connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting', ended: 'Not connected' };
/** @type {Record<Activity, string>} */
const ACTIVITIES = { quiet: '', listening: 'Listening', hearing: 'Hearing you', thinking: 'Thinking', speaking: 'Speaking' };
/** @type {Record<string, string>} why a connection is being opened again */
const WHY = { lost: 'Connection lost.', drain: 'The server is restarting.', capacity: 'The server is full.', internal: 'The server had a fault.',
  voice: 'Changing the voice.', token_failed: 'Waiting for your sign-in.' };
/** Long enough to read twice. */
const NOTICE_MS = 8000;
/** Notices that hold until something else happens. */
const LASTING = new Set(['reconnecting', 'draining', 'time_limit_soon', 'budget_soon', 'mic_silent', 'mic_prompt', 'agent_ended']);
/** The latest twenty answers say what is typical. */
const MOST_DELAYS = 20;

export class StatusView {
  #state = byId('state', HTMLElement);
  #stateWords = byId('state-words', HTMLElement);
  #clock = byId('clock', HTMLElement);
  #alerts = byId('alerts', HTMLElement);
  #reconnect = byId('reconnect', HTMLElement);
  #reconnectWords = byId('reconnect-words', HTMLElement);
  #countdown = byId('countdown', HTMLElement);
  #notice = byId('notice', HTMLElement);
  #activity = byId('activity', HTMLElement);
  #activityWords = byId('activity-words', HTMLElement);
  #latency = byId('latency', HTMLOutputElement);
  #typical = byId('typical', HTMLElement);
  /** @type {number[]} */ #delays = [];
  #liveSince = 0;
  #retryAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #noticeTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #ticker;

  /** @param {{state: VoiceState, reason: string, retryInMs: number, attempt: number}} now */
  state({ state, reason, retryInMs, attempt }) {
    this.#state.dataset.state = state;
    this.#stateWords.textContent = STATES[state];
    if (state === 'live') { this.#liveSince ||= Date.now(); this.problem(null); }
    if (state === 'connecting') { this.problem(null); this.notice(null); }
    if (state === 'ended') this.#liveSince = 0;
    const waiting = state === 'reconnecting';
    this.#reconnect.hidden = !waiting;
    this.#retryAt = waiting ? Date.now() + retryInMs : 0;
    if (waiting) this.#reconnectWords.textContent = `${WHY[reason] ?? 'Connection lost.'}${attempt > 1 ? ` Attempt ${attempt}.` : ''}`;
    clearInterval(this.#ticker);
    if (state === 'live' || waiting) this.#ticker = setInterval(() => this.#tick(), 250);
    this.#tick();
  }

  #tick() {
    const s = this.#liveSince ? Math.floor((Date.now() - this.#liveSince) / 1000) : -1;
    this.#clock.textContent = s < 0 ? '' : `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`;
    const left = Math.ceil((this.#retryAt - Date.now()) / 1000);
    this.#countdown.textContent = left > 0 ? `Trying again in ${left} s. The conversation is kept.` : 'Trying again. The conversation is kept.';
  }

  /** @param {Activity} activity @param {boolean} canHear false: typed conversation */
  activity(activity, canHear) {
    this.#activity.dataset.activity = activity;
    this.#activityWords.textContent = activity === 'listening' && !canHear ? 'Ready; type a message' : ACTIVITIES[activity];
  }

  /** @param {Problem | null} problem null takes the last one away */
  problem(problem) {
    this.#alerts.replaceChildren();
    if (!problem) return;
    const close = make('button', 'quiet', 'Dismiss');
    close.type = 'button';
    close.addEventListener('click', () => this.problem(null));
    this.#alerts.append(make('div', 'card-inside problem', make('p', 'what', problem.message), close, make('p', 'advice', problem.advice),
      make('details', '', make('summary', '', 'Technical detail'), make('code', '', `${problem.code} · ${problem.detail}`))));
    this.#alerts.scrollIntoView({ block: 'nearest' });
  }

  /** @param {{code: string, message: string} | null} notice */
  notice(notice) {
    clearTimeout(this.#noticeTimer);
    this.#notice.hidden = !notice;
    this.#notice.textContent = notice?.message ?? '';
    if (notice && !LASTING.has(notice.code)) this.#noticeTimer = setTimeout(() => this.notice(null), NOTICE_MS);
  }

  /** @param {number} ms end of your turn to the first sound of the answer */
  latency(ms) {
    this.#delays.push(ms);
    if (this.#delays.length > MOST_DELAYS) this.#delays.shift();
    this.#latency.textContent = `${ms} ms`;
    const sorted = [...this.#delays].sort((a, b) => a - b);
    this.#typical.textContent = sorted.length > 2 ? `typical ${sorted[Math.floor(sorted.length / 2)]} ms` : '';
  }
}
