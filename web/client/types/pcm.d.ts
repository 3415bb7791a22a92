/**
 * PCM16 to base64 and back, the form sound has on the wire.
 *
 * Typed arrays use the machine's byte order; every machine that runs a browser with AudioWorklet is little endian,
 * which is also what the protocol asks for.
 */
/**
 * Base64 of 16-bit samples.
 *
 * @param {Int16Array} pcm mono samples, 24 kHz
 * @returns {string}
 */
export declare function toBase64(pcm: Int16Array): string;
/**
 * Samples of a base64 text; a stray last byte is left out.
 *
 * @param {string} text base64 of little-endian PCM16
 * @returns {Int16Array<ArrayBuffer>}
 * @throws {DOMException} InvalidCharacterError, if it is not base64
 */
export declare function fromBase64(text: string): Int16Array<ArrayBuffer>;
