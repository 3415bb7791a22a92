// @ts-check
/**
 * PCM16 to base64 and back, the form sound has on the wire.
 *
 * Typed arrays use the machine's byte order; every machine that runs a browser with AudioWorklet is little endian,
 * which is also what the protocol asks for.
 */

/** String.fromCharCode(...) takes its bytes as arguments; engines allow at least 65,536 of them. */
const BYTES_PER_CALL = 8192;

/**
 * Base64 of 16-bit samples.
 *
 * @param {Int16Array} pcm mono samples, 24 kHz
 * @returns {string}
 */
export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  const builtIn = /** @type {{toBase64?: () => string}} */ (/** @type {unknown} */ (bytes));
  if (builtIn.toBase64) return builtIn.toBase64();
  let text = '';
  for (let at = 0; at < bytes.length; at += BYTES_PER_CALL) {
    text += String.fromCharCode(...bytes.subarray(at, at + BYTES_PER_CALL));
  }
  return btoa(text);
}

/**
 * Samples of a base64 text; a stray last byte is left out.
 *
 * @param {string} text base64 of little-endian PCM16
 * @returns {Int16Array<ArrayBuffer>}
 * @throws {DOMException} InvalidCharacterError, if it is not base64
 */
export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
