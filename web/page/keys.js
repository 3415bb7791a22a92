// @ts-check
/**
 * Keyboard shortcuts. Single keys can be switched off (WCAG 2.1.4), never act while typing, and leave Space to
 * whatever control has the focus.
 *
 * @typedef {object} Actions
 * @property {(down: boolean) => void} hold
 * @property {() => void} mute
 * @property {() => void} interrupt
 * @property {() => boolean} holds push to talk is on and connected
 */

/** @param {HTMLInputElement} enabled the checkbox @param {HTMLElement} holdButton @param {Actions} actions */
export function listenToKeys(enabled, holdButton, actions) {
  // A key that acts only on the focused button is not a page-wide shortcut and stays.
  const plain = (/** @type {KeyboardEvent} */ e) => (enabled.checked || e.target === holdButton) && !e.ctrlKey && !e.metaKey && !e.altKey;
  const typing = (/** @type {EventTarget | null} */ t) => t instanceof HTMLElement && t.matches('input:not([type=checkbox]), select, textarea');
  const free = (/** @type {EventTarget | null} */ t) => t === document.body || t === holdButton || (t instanceof HTMLElement && t.id === 'captions');
  let held = false;
  const hold = (/** @type {boolean} */ down) => { if (held !== down) { held = down; actions.hold(down); } };

  addEventListener('keydown', (e) => {
    if (!plain(e)) return;
    if (e.code === 'Space' && actions.holds() && free(e.target)) {
      e.preventDefault();                       // the page must not scroll, the button must not click
      if (!e.repeat) hold(true);
    } else if (e.key.toLowerCase() === 'm' && !e.repeat && !typing(e.target)) actions.mute();
    else if (e.key === 'Escape') actions.interrupt();
  });
  addEventListener('keyup', (e) => { if (e.code === 'Space' && held) { e.preventDefault(); hold(false); } });
  // A key let go in another window is never reported.
  addEventListener('blur', () => hold(false));
}
