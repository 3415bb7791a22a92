// @ts-check
/**
 * The last two seconds of a level as bars, newest at the right; a plain bar where motion is not wanted.
 * The picture is for the eye; a <meter> beside it says the same to everybody else.
 */

const BAR = 3;
const GAP = 2;
/** About 21 bars a second: two seconds fill a strip of 210 px. */
const BAR_MS = 48;
/** Speech peaks sit low on a linear scale; the square root brings them to where the eye expects them. */
const shape = (/** @type {number} */ peak) => Math.min(1, Math.sqrt(peak) * 1.15);

export class LevelStrip {
  #still = matchMedia('(prefers-reduced-motion: reduce)');
  /** @type {number[]} */ #bars = [];
  #peak = 0;
  #barAt = 0;
  #quietBars = 0;
  #drawing = false;

  /** @param {HTMLCanvasElement} canvas @param {HTMLMeterElement} meter */
  constructor(canvas, meter) {
    this.canvas = canvas;
    this.meter = meter;
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  /** @param {number} peak 0..1 */
  push(peak) {
    this.#peak = Math.max(this.#peak, peak);
    if (peak > 0.002) this.#quietBars = 0;
    if (!this.#drawing) { this.#drawing = true; requestAnimationFrame((now) => this.#frame(now)); }
  }

  /** @param {number} now */
  #frame(now) {
    if (now - this.#barAt >= BAR_MS) {
      this.#barAt = now;
      const most = Math.max(1, Math.floor(this.canvas.clientWidth / (BAR + GAP)));
      this.#bars.push(this.#peak);
      if (this.#bars.length > most) this.#bars.splice(0, this.#bars.length - most);
      this.meter.value = this.#peak;
      this.#peak = 0;
      this.#quietBars++;
      this.#draw();
      // Nothing left to move: stop until there is.
      if (this.#quietBars > most) { this.#drawing = false; return; }
    }
    requestAnimationFrame((next) => this.#frame(next));
  }

  #draw() {
    const { canvas, pen } = this;
    const scale = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    pen.fillStyle = style.color;
    if (this.#still.matches) this.#drawBar(width, height, style.getPropertyValue('--line')); else this.#drawBars(width, height);
  }

  /** @param {number} width @param {number} height @param {string} track */
  #drawBar(width, height, track) {
    const { pen } = this;
    const level = shape(this.#bars[this.#bars.length - 1] ?? 0);
    const top = height / 2 - 4;
    const ink = pen.fillStyle;
    pen.fillStyle = track;
    this.#pill(0, top, width, 8);
    pen.fillStyle = ink;
    if (level > 0.01) this.#pill(0, top, Math.max(8, width * level), 8);
  }

  /** @param {number} width @param {number} height */
  #drawBars(width, height) {
    const { pen } = this;
    const most = Math.floor(width / (BAR + GAP));
    for (let i = 0; i < most; i++) {
      const level = shape(this.#bars[this.#bars.length - 1 - i] ?? 0);
      const tall = Math.max(BAR, level * height);
      // The past fades; silence is a faint dotted line.
      pen.globalAlpha = (level > 0.02 ? 1 : 0.35) * (1 - 0.65 * i / most);
      this.#pill(width - (i + 1) * (BAR + GAP) + GAP, (height - tall) / 2, BAR, tall);
    }
    pen.globalAlpha = 1;
  }

  /** @param {number} x @param {number} y @param {number} w @param {number} h */
  #pill(x, y, w, h) {
    this.pen.beginPath();
    this.pen.roundRect(x, y, w, h, Math.min(w, h) / 2);
    this.pen.fill();
  }
}
