// @ts-check
/** The operator's page: puts the parts together. */
import { byId, make } from '../page/dom.js';
import { bars } from './charts.js';
import { LiveTable } from './live-table.js';
import { PastView } from './past-view.js';
import { ask, introduce, ServerError, Stream } from './server.js';
import { SessionView } from './session-view.js';
import { age, clock, delay, money, percent, plain, short } from './words.js';

/** @typedef {import('./server.js').LiveRow} LiveRow */
/** @typedef {import('./server.js').Overview} Overview */
/** @typedef {import('./server.js').Picture} Picture */

const COSTS_MS = 60_000;

const alerts = byId('alerts', HTMLElement);
const session = new SessionView();
const live = new LiveTable((row) => openLive(row), (row) => void end(row));
const past = new PastView((one) => void openPast(one.id));
const stream = new Stream(seen, lost);

/** The live session that is open, or empty. */
let opened = '';
let openedWasSeen = false;
/** Where to go back to when what is open is closed. @type {HTMLElement | null} */
let cameFrom = null;
let histogram = '';
let troubles = '';

/** @param {string} words */
function alarm(words) {
  alerts.replaceChildren(...(words ? [make('p', 'alarm', words)] : []));
}

/** @param {'live' | 'draining' | 'connecting' | 'lost'} state @param {string} words */
function state(state, words) {
  const node = byId('state', HTMLElement);
  if (node.dataset.state === state) return;
  node.dataset.state = state;
  byId('state-words', HTMLElement).textContent = words;
}

/** @param {string} words */
function lost(words) {
  if (words) { state('connecting', 'Connecting again'); return; }
  stream.close();
  state('lost', 'Signed out');
  alarm('Your session is over. Open the address that ./voice status prints again.');
}

/** @param {string} id @param {string} text */
function tile(id, text) {
  const node = byId(id, HTMLElement);
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Overview} all */
function showTiles(all) {
  tile('tile-active', String(all.active));
  tile('tile-limit', `of ${all.max_connections}`);
  tile('tile-browser', String(all.browser));
  tile('tile-phone', String(all.phone));
  tile('tile-errors', percent(all.error_rate));
  tile('tile-ended', `of ${all.recent_ended} ended`);
  tile('tile-p50', delay(all.first_audio.p50_ms));
  tile('tile-p95', delay(all.first_audio.p95_ms));
  tile('tile-cost', money(all.cost_today_usd));
  tile('tile-workers', String(all.workers.length));
  tile('tile-uptime', `up ${age(all.uptime_s)}`);
  byId('simulated', HTMLElement).hidden = !all.simulated;
}

/** @param {Overview} all */
function showDelays(all) {
  const told = JSON.stringify(all.first_audio.histogram);
  if (told === histogram) return;
  histogram = told;
  const words = (/** @type {number | null} */ end) => (end === null ? 'more' : `${end / 1000} s`);
  bars(byId('delay-chart', HTMLElement), {
    caption: 'Answers by the time to their first sound', columns: ['Up to', 'Answers'], every: 2,
    bars: all.first_audio.histogram.map(({ le_ms, count }) => ({ name: words(le_ms), value: count, words: String(count) })),
  });
}

/** @param {Overview} all */
function showTroubles(all) {
  const told = JSON.stringify(all.troubles);
  if (told === troubles) return;
  troubles = told;
  const list = byId('troubles-list', HTMLElement);
  list.hidden = !all.troubles.length;
  byId('troubles-empty', HTMLElement).hidden = all.troubles.length > 0;
  list.replaceChildren(...[...all.troubles].reverse().map((trouble) => {
    const { conversation_id: id, ...rest } = trouble.fields;
    const fields = Object.entries(rest).map(([name, value]) => `${name}=${plain(value)}`).join('  ');
    const node = make('li', trouble.level, make('time', '', clock(trouble.time)), make('span', 'level', trouble.level),
      make('span', 'what', trouble.event, make('span', 'fine', fields)));
    if (typeof id === 'string') node.append(link(id));
    return node;
  }));
}

/** @param {string} id */
function link(id) {
  const button = make('button', 'quiet', `Session ${short(id)}`);
  button.type = 'button';
  button.addEventListener('click', () => { cameFrom = button; void openPast(id); });
  return button;
}

/** @param {Picture} picture @param {string} asked */
function seen({ overview, open }, asked) {
  if (overview.draining) state('draining', 'Draining'); else state('live', 'Live');
  alarm('');
  showTiles(overview);
  live.show(overview.sessions, opened);
  showDelays(overview);
  showTroubles(overview);
  past.offer(Object.keys(overview.ended));
  if (!opened || asked !== opened) return;
  if (open && 'conversation_id' in open) {
    openedWasSeen = true;
    session.showLive(/** @type {import('./server.js').LiveDetail} */ (open));
  } else if (openedWasSeen) {
    session.gone();
    opened = '';
    stream.look('');
    void past.search();
  }
}

/** @param {LiveRow} row */
function openLive(row) {
  cameFrom = /** @type {HTMLElement | null} */ (document.activeElement);
  opened = row.conversation_id;
  openedWasSeen = false;
  const prompt = make('button', 'quiet', 'Show instructions');
  const ending = make('button', 'ending', 'End session');
  prompt.type = ending.type = 'button';
  prompt.addEventListener('click', () => { prompt.disabled = true; stream.look(row.conversation_id, true); });
  ending.addEventListener('click', () => void end(row));
  session.begin(`${row.agent}, ${row.channel}`, [prompt, ending]);
  stream.look(opened);
}

/** @param {string} id */
async function openPast(id) {
  cameFrom = /** @type {HTMLElement | null} */ (document.activeElement);
  if (opened) { opened = ''; stream.look(''); }
  const files = ['text', 'json'].map((format) => {
    const anchor = make('a', 'button', `Export ${format === 'json' ? 'JSON' : 'text'}`);
    anchor.href = `/admin/past/${id}?format=${format}`;
    anchor.download = '';
    return anchor;
  });
  session.begin(`Conversation ${short(id)}`, files);
  try {
    session.showPast(await ask(`past/${id}`));
  } catch (error) {
    session.note(error instanceof ServerError ? `${error.message}.` : String(error));
  }
}

/** @param {LiveRow} row */
async function end(row) {
  const dialog = byId('end-dialog', HTMLDialogElement);
  byId('end-words', HTMLElement).textContent = row.channel === 'phone'
    ? `The call with ${row.agent} is hung up.` : `The conversation with ${row.agent} is closed; the person can begin another.`;
  dialog.returnValue = 'keep';
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener('close', closed, { once: true }));
  if (dialog.returnValue !== 'end') return;
  try {
    await ask(`live/${row.conversation_id}/end`, 'POST');
  } catch (error) {
    alarm(error instanceof ServerError ? `${error.message}.` : String(error));
  }
}

byId('session-close', HTMLButtonElement).addEventListener('click', () => {
  session.hide();
  if (opened) { opened = ''; stream.look(''); }
  if (cameFrom?.isConnected) cameFrom.focus();
});

byId('sign-out', HTMLButtonElement).addEventListener('click', async () => {
  await ask('session', 'DELETE').catch(() => null);
  location.reload();
});

const doctor = byId('doctor-ask', HTMLButtonElement);
doctor.addEventListener('click', async () => {
  const note = byId('doctor-note', HTMLElement);
  doctor.disabled = true;
  note.textContent = 'Looking; this takes some seconds.';
  try {
    const found = /** @type {{ok: boolean, checks: import('./server.js').Finding[], problem?: string}} */ (await ask('doctor'));
    byId('doctor-list', HTMLElement).replaceChildren(...found.checks.map((finding) => make('li', finding.state, make('span', 'level', finding.state),
      make('span', 'what', `${finding.name}: ${finding.text}`, ...(finding.mend ? [make('code', '', finding.mend)] : [])))));
    note.textContent = found.problem ? `${found.problem}.` : found.ok ? 'No problem found.' : 'There is something to mend.';
  } catch (error) {
    note.textContent = error instanceof ServerError ? `${error.message}.` : String(error);
  }
  doctor.disabled = false;
});

async function showCosts() {
  try {
    const { days } = /** @type {{days: import('./server.js').Day[]}} */ (await ask('costs'));
    bars(byId('cost-chart', HTMLElement), {
      caption: 'Cost of the last thirty days', columns: ['Day', 'Cost'], every: 7,
      bars: days.map((day) => ({ name: day.day.slice(5), value: day.cost_usd, mark: money(day.cost_usd), words: `${money(day.cost_usd)}, ${day.conversations} conversations` })),
    });
  } catch (error) {
    byId('cost-chart', HTMLElement).replaceChildren(make('p', 'fine', error instanceof ServerError ? `${error.message}.` : String(error)));
  }
}

async function begin() {
  try {
    await introduce();
  } catch (error) {
    if (error instanceof ServerError && error.status === 401) { lost(''); return; }
  }
  stream.look('');
  void past.search();
  void showCosts();
  setInterval(() => void showCosts(), COSTS_MS);
}

void begin();
