// @ts-check
/** Twelve keys, by click and by keyboard; a page-wide shortcut that can be switched off (WCAG 2.1.4). */

/** How long a key pressed on the keyboard looks pressed. */
const FLASH_MS = 140;

/**
 * Tell of every key pressed.
 *
 * @param {HTMLElement} pad holds buttons with `data-key`
 * @param {HTMLInputElement} shortcuts the checkbox
 * @param {(key: string) => void} pressed is given one of 0-9 * #
 */
export function listenToKeypad(pad, shortcuts, pressed) {
  const buttons = /** @type {HTMLButtonElement[]} */ ([...pad.querySelectorAll('button[data-key]')]);
  for (const button of buttons) button.addEventListener('click', () => pressed(button.dataset.key ?? ''));

  addEventListener('keydown', (event) => {
    if (!shortcuts.checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target instanceof HTMLElement && event.target.matches('input:not([type=checkbox], [readonly]), select, textarea')) return;
    const button = buttons.find((one) => one.dataset.key === event.key);
    if (!button) return;
    event.preventDefault();
    button.classList.add('down');
    setTimeout(() => button.classList.remove('down'), FLASH_MS);
    pressed(event.key);
  });
}
