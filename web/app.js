// @ts-check
/**
 * The talk page: wires the client library to the document.
 *
 * Address: `#token=` sign-in token (page/sign-in.js); `?agent_id=`, `?voice=`, `?conversation_id=` choose; `?raw=1` switches the
 * browser's echo, noise and gain processing off (for measurements).
 */
import { VoiceClient } from '/client/lib/voice-client.js';
import { CaptionsView } from './page/captions-view.js';
import { Controls } from './page/controls.js';
import { Devices } from './page/devices.js';
import { DirectoryError, readDirectory } from './page/directory.js';
import { byId, make } from './page/dom.js';
import { Inspector } from './page/inspector.js';
import { LevelStrip } from './page/level-strip.js';
import { SignIn } from './page/sign-in.js';
import { StatusView } from './page/status-view.js';

/** @typedef {import('./page/directory.js').Agent} Agent */

/** What the simulated agent understands. */
const PHRASES = ['hello', 'test tool', 'test long answer', 'test error', 'test silence', 'hang up'];

const query = new URLSearchParams(location.search);
const raw = query.get('raw') === '1';

const client = new VoiceClient({
  url: '/',
  token: () => signIn.token(),
  // As a subprotocol the token stays out of every access log, and QUERY_TOKENS=off does not matter.
  tokenIn: 'subprotocol',
  agentId: query.get('agent_id') ?? '',
  conversationId: query.get('conversation_id') ?? '',
  voice: query.get('voice') ?? '',
  processing: raw ? { echoCancellation: false, noiseSuppression: false, autoGainControl: false } : {},
});
// For the browser's console, and for tests.
Object.assign(globalThis, { voice: client });

const captions = new CaptionsView();
const status = new StatusView();
const inspector = new Inspector();
const devices = new Devices(client);
const micStrip = new LevelStrip(byId('mic-strip', HTMLCanvasElement), byId('mic-level', HTMLMeterElement));
const agentStrip = new LevelStrip(byId('agent-strip', HTMLCanvasElement), byId('agent-level', HTMLMeterElement));
const controls = new Controls(client, { microphone: () => devices.microphone, problem: (problem) => status.problem(problem) });

client.on('state', ({ detail }) => {
  status.state(detail);
  controls.show();
  // The badge goes on saying it; the conversation gets the room.
  if (detail.state === 'live') { byId('simulated', HTMLElement).hidden = true; void devices.list(); devices.useSpeaker(); }
  if (detail.state === 'ended' && detail.reason === 'unauthorized') signIn.ask('Your sign-in has expired or was not accepted.');
});
client.on('activity', ({ detail }) => {
  status.activity(detail.activity, client.hasMicrophone);
  controls.activity(detail.activity);
});
client.on('caption', ({ detail }) => { captions.show(detail); copy.disabled = captions.isEmpty; });
client.on('latency', ({ detail }) => status.latency(detail.ms));
client.on('level', ({ detail }) => { micStrip.push(detail.mic); agentStrip.push(detail.agent); });
client.on('notice', ({ detail }) => status.notice(detail));
client.on('event', ({ detail }) => inspector.add(detail.direction, detail.event));
let lastProblem = '';
client.on('problem', ({ detail }) => {
  lastProblem = detail.code;
  status.problem(detail);
  // Nothing is heard then, so a screen reader has nothing to talk over.
  if (detail.code === 'no_sound') { announce.checked = true; captions.announce(true); }
});

const announce = byId('announce', HTMLInputElement);
announce.addEventListener('change', () => captions.announce(announce.checked));
byId('retry', HTMLButtonElement).addEventListener('click', () => client.retryNow());
addEventListener('pointerdown', async () => {
  if (!await client.resumeSound() || lastProblem !== 'paused') return;
  lastProblem = '';
  status.problem(null);
});

const copy = byId('copy', HTMLButtonElement);
copy.addEventListener('click', async () => {
  const done = await navigator.clipboard?.writeText(captions.asText()).then(() => true, () => false);
  byId('copied', HTMLElement).textContent = done ? 'Copied.' : 'The browser did not allow copying.';
});
/** @param {string} reason */
async function forgetConversation(reason) {
  await client.stop(reason);
  client.conversationId = '';
  captions.clear();
  copy.disabled = true;
  status.problem(null);
  status.notice(null);
}
byId('fresh', HTMLButtonElement).addEventListener('click', () => void forgetConversation('new'));

const agentPicker = byId('agent', HTMLSelectElement);
const voicePicker = byId('voice', HTMLSelectElement);
/** @type {Map<string, Agent>} */
const agents = new Map();

function chooseAgent() {
  const agent = agents.get(agentPicker.value);
  if (!agent) return;
  if (client.options.agentId && client.options.agentId !== agent.id) {
    // A conversation belongs to one agent.
    client.conversationId = '';
    captions.divide(`${agent.name} from here on`);
  }
  client.options.agentId = agent.id;
  captions.agentName = agent.name;
  document.title = `Talk to ${agent.name}`;
  byId('hello', HTMLElement).textContent = `Say hello to ${agent.name}`;
  voicePicker.options[0].textContent = agent.voice ? `${agent.voice} (agent’s own)` : 'Agent’s own';
  if (agent.description) byId('about', HTMLElement).textContent = agent.description;
}
agentPicker.addEventListener('change', chooseAgent);
voicePicker.addEventListener('change', () => client.setVoice(voicePicker.value));

/** @param {string[]} phrases */
function offerPhrases(phrases) {
  byId('phrases', HTMLElement).replaceChildren(...phrases.map((phrase) => {
    const chip = make('button', '', phrase);
    chip.type = 'button';
    chip.addEventListener('click', () => controls.say(phrase));
    return chip;
  }));
}

/** @param {import('./page/directory.js').Directory} directory */
function offer(directory) {
  agents.clear();
  agentPicker.replaceChildren();
  for (const agent of directory.agents) {
    agents.set(agent.id, agent);
    agentPicker.add(new Option(agent.name, agent.id));
  }
  voicePicker.length = 1;
  for (const voice of directory.voices) voicePicker.add(new Option(voice, voice));
  if (agents.has(client.options.agentId)) agentPicker.value = client.options.agentId;
  voicePicker.value = directory.voices.includes(client.options.voice ?? '') ? client.options.voice ?? '' : '';
  for (const id of ['simulated', 'simulated-badge', 'phrases']) byId(id, HTMLElement).hidden = !directory.simulated;
  if (directory.simulated) {
    offerPhrases(PHRASES);
    byId('privacy', HTMLElement).textContent = 'Simulated: nothing is sent to OpenAI. The words are stored by this server as in a real conversation; the sound is never stored.';
  }
  chooseAgent();
  controls.ready(agents.size > 0);
  if (!agents.size) {
    agentPicker.add(new Option('No agent yet', ''));
    status.problem({ code: 'no_agent', message: 'You have no agent yet.', advice: 'Create one in your app, then reload this page.', detail: 'GET /api/agents: empty', fatal: true });
  }
}

async function load() {
  const token = await signIn.token();
  if (!token) { agentPicker.options[0].textContent = 'Sign in first'; controls.ready(false); signIn.ask(); return; }
  try {
    offer(await readDirectory(token, query.get('agent_id') ?? ''));
    status.problem(null);
  } catch (error) {
    controls.ready(false);
    const code = error instanceof DirectoryError ? error.status : 0;
    if (code === 401 || code === 403) { signIn.ask('Your sign-in has expired or was not accepted.'); return; }
    status.problem({ code: 'no_directory', message: 'The list of agents could not be read.', advice: 'Check your connection, then reload this page.', detail: String(error), fatal: true });
  }
}

/** Nobody is signed in any more: the next person must see nothing of the last one's. */
function leave() {
  void forgetConversation('signed_out');
  inspector.clear();
  agents.clear();
  agentPicker.replaceChildren(new Option('Sign in first', ''));
  client.options.agentId = query.get('agent_id') ?? '';
  controls.ready(false);
}

const signIn = new SignIn(() => void load(), leave);
void load();
