// @ts-check
/** Trades an admin's token for a session, where the operator's page is exposed. */
import { byId } from '../page/dom.js';

const fault = byId('fault', HTMLElement);

byId('sign-in', HTMLFormElement).addEventListener('submit', async (event) => {
  event.preventDefault();
  fault.textContent = '';
  const token = byId('token', HTMLInputElement).value.trim();
  try {
    const answer = await fetch('/admin/session', { method: 'POST', body: JSON.stringify({ token }) });
    if (answer.ok) { location.replace('/admin'); return; }
    const told = await answer.json();
    fault.textContent = `${told.error?.message ?? 'Not accepted'}.`;
  } catch {
    fault.textContent = 'The server did not answer. Try again.';
  }
});
