/**
 * Which answers are under way, and which pieces of sound still count.
 *
 * After an interruption pieces of the old answer are still on their way; they are known by their item or response.
 */
export declare class Replies {
    #private;
    /** The response being made, if any; `response.done` is its only reliable end. @type {string | null} */
    active: string | null;
    /** @param {string} id */
    created(id: string): void;
    /** @param {Record<string, any>} event @returns {boolean} it belongs to an interrupted answer */
    isCut(event: Record<string, any>): boolean;
    /** @param {Record<string, any>} event a piece of sound @returns {boolean} false: it belongs to an interrupted answer */
    takes(event: Record<string, any>): boolean;
    /** The sound of an item is complete. @param {string} item */
    complete(item: string): void;
    /** The response is over, however it went. @param {string} id @returns {string[]} items that got no end of their own */
    done(id: string): string[];
    /** What is under way counts no more. @returns {string[]} items whose sound was still coming */
    cut(): string[];
    /** Nothing of these items or responses counts any more. @param {string[]} ids */
    drop(ids: string[]): void;
    /** The connection is gone: no `response.done` will come. */
    lost(): void;
}
