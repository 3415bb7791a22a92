// @ts-check
/** Two bar charts as SVG. Every bar is also a row of a table that screen readers read and eyes do not see. */
import { make } from '../page/dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 480;
const HEIGHT = 160;
const FOOT = 22;
const HEAD = 14;

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} [text] */
function draw(name, attributes, text = '') {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.textContent = text;
  return node;
}

/**
 * Draw bars in place of what was there.
 *
 * @param {HTMLElement} place
 * @param {{caption: string, columns: [string, string], bars: {name: string, value: number, words: string, mark?: string}[], every: number}} chart
 *   `words` stand in the table, `mark` above the highest bar; `every`: which names are written below
 */
export function bars(place, { caption, columns, bars: all, every }) {
  const most = Math.max(...all.map((bar) => bar.value), 0);
  const svg = draw('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, 'aria-hidden': 'true', class: 'chart' });
  const step = WIDTH / all.length;
  all.forEach((bar, place_) => {
    const height = most ? (HEIGHT - FOOT - HEAD) * bar.value / most : 0;
    const x = place_ * step;
    svg.append(draw('rect', { x: x + 1.5, y: HEIGHT - FOOT - Math.max(height, 1), width: Math.max(step - 3, 1), height: Math.max(height, 1), rx: 2, class: bar.value ? 'bar' : 'bar none' }));
    if (bar.value && bar.value === most) {
      const anchor = place_ < 3 ? 'start' : place_ > all.length - 4 ? 'end' : 'middle';
      svg.append(draw('text', { x: x + (anchor === 'start' ? 0 : anchor === 'end' ? step : step / 2), y: HEIGHT - FOOT - height - 4, 'text-anchor': anchor, class: 'value' }, bar.mark ?? bar.words));
    }
    if (place_ % every === 0) svg.append(draw('text', { x: x + step / 2, y: HEIGHT - 6, 'text-anchor': place_ ? 'middle' : 'start' }, bar.name));
  });
  const body = make('tbody', '', ...all.map((bar) => {
    const head = make('th', '', bar.name);
    head.scope = 'row';
    return make('tr', '', head, make('td', '', bar.words));
  }));
  const heads = columns.map((column) => { const head = make('th', '', column); head.scope = 'col'; return head; });
  const table = make('table', '', make('caption', '', caption), make('thead', '', make('tr', '', ...heads)), body);
  place.replaceChildren(svg, make('div', 'unseen', table), ...(most ? [] : [make('p', 'fine', 'Nothing to show yet.')]));
}
