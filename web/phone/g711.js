// @ts-check
/**
 * G.711 mu-law, the sound of a telephone line: 8 kHz, one byte a sample.
 *
 * Source: ITU-T G.711; the bias of 132 and the clip at 32,635 are those of Sun's reference.
 */
export const LINE_RATE_HZ = 8000;
/** 20 ms: what Twilio sends and plays at a time. */
export const FRAME = LINE_RATE_HZ / 50;

const BIAS = 132;
const CLIP = 32635;

/** @param {number} code @returns {number} -1..1 */
function expand(code) {
  const bits = ~code & 0xff;
  const magnitude = (((bits & 0x0f) << 3) + BIAS << ((bits & 0x70) >> 4)) - BIAS;
  return (bits & 0x80 ? -magnitude : magnitude) / 32768;
}

const EXPANDED = Float32Array.from({ length: 256 }, (_, code) => expand(code));

/** @param {number} sample 16 bits */
function compress(sample) {
  const sign = sample < 0 ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(sample), CLIP) + BIAS;
  const exponent = 24 - Math.clz32(magnitude);
  return ~(sign | exponent << 4 | magnitude >> exponent + 3 & 0x0f) & 0xff;
}

/** @param {Int16Array} pcm 8 kHz @returns {Uint8Array<ArrayBuffer>} one byte a sample */
export function encode(pcm) {
  const bytes = new Uint8Array(pcm.length);
  for (let i = 0; i < pcm.length; i++) bytes[i] = compress(pcm[i]);
  return bytes;
}

/** @param {Uint8Array} bytes @returns {Float32Array<ArrayBuffer>} samples of -1..1, 8 kHz */
export function decode(bytes) {
  const samples = new Float32Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) samples[i] = EXPANDED[bytes[i]];
  return samples;
}
