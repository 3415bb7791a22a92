// @ts-check
/**
 * Which agents and voices there are: GET /api/agents.
 *
 * @typedef {{id: string, name: string, voice: string, description: string}} Agent
 * @typedef {{agents: Agent[], voices: string[], simulated: boolean}} Directory
 */

const DEADLINE_MS = 10_000;
/** Without a directory the voices of the contract are offered. */
const VOICES = ['alloy', 'ash', 'ballad', 'coral', 'echo', 'sage', 'shimmer', 'verse', 'marin', 'cedar'];

/** The directory could not be read; `status` is 401 when the token was not accepted, 0 when no answer came. */
export class DirectoryError extends Error {
  /** @param {number} status */
  constructor(status) {
    super(`GET /api/agents ${status || 'no answer'}`);
    this.status = status;
  }
}

/**
 * Read the directory.
 *
 * @param {string} token
 * @param {string} wanted an agent id from the page's address; it is offered even where there is no directory
 * @returns {Promise<Directory>}
 * @throws {DirectoryError}
 */
export async function readDirectory(token, wanted) {
  const response = await fetch('/api/agents', { headers: { authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(DEADLINE_MS) })
    .catch(() => { throw new DirectoryError(0); });
  if (response.status === 404 && wanted) return { agents: [unnamed(wanted)], voices: VOICES, simulated: false };
  if (!response.ok) throw new DirectoryError(response.status);
  const body = await response.json().catch(() => { throw new DirectoryError(response.status); });
  /** @type {Agent[]} */
  const agents = (Array.isArray(body.agents) ? body.agents : []).map((/** @type {any} */ one) => ({
    id: String(one.id), name: String(one.name || 'Unnamed agent'), voice: String(one.voice ?? ''), description: String(one.description ?? '') }));
  if (wanted && !agents.some((agent) => agent.id === wanted)) agents.unshift(unnamed(wanted));
  return { agents, voices: Array.isArray(body.voices) ? body.voices.map(String) : VOICES, simulated: body.simulated === true };
}

/** @param {string} id @returns {Agent} */
function unnamed(id) { return { id, name: 'Agent from the address', voice: '', description: '' }; }
