/** Keeps the screen on while a conversation is live: a phone that locks stops the microphone. */
export declare class WakeLock {
    #private;
    hold(): void;
    release(): void;
}
