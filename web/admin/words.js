// @ts-check
/** Figures as people read them. */

/** @param {number} seconds */
export function age(seconds) {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${String(m).padStart(2, '0')}:${String(s).padStart(2, '0')}` : `${m}:${String(s).padStart(2, '0')}`;
}

/** @param {number | null} ms */
export const delay = (ms) => (ms === null ? '–' : `${ms} ms`);

/** @param {number} usd */
export const money = (usd) => (usd === 0 ? '$0' : usd < 0.01 ? '< $0.01' : `$${usd.toFixed(2)}`);

/** @param {number | null} share */
export const percent = (share) => (share === null ? '–' : `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`);

/** @param {number} bytes */
export const size = (bytes) => (bytes < 1_000_000 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1_000_000).toFixed(1)} MB`);

/** @param {string | number} at ISO 8601, or Unix seconds */
export function clock(at) {
  const moment = new Date(typeof at === 'number' ? at * 1000 : at);
  const today = new Date().toDateString() === moment.toDateString();
  const time = moment.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  return today ? time : `${moment.toLocaleDateString([], { day: 'numeric', month: 'short' })} ${time}`;
}

/** @param {unknown} value */
export function plain(value) {
  if (value === null || value === undefined || value === '') return '–';
  if (Array.isArray(value)) return value.length ? value.join(', ') : 'none';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The beginning of an id, enough to tell two apart. @param {string} id */
export const short = (id) => id.slice(0, 8);

export const SPEAKS = { user: 'person', agent: 'agent', nobody: 'nobody' };
