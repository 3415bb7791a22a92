// @ts-check
/** Keeps the screen on while a conversation is live: a phone that locks stops the microphone. */
export class WakeLock {
  /** @type {WakeLockSentinel | null} */ #lock = null;
  #wanted = false;
  #again = () => { if (document.visibilityState === 'visible') void this.#take(); };

  hold() {
    if (this.#wanted) return;
    this.#wanted = true;
    // The system takes the lock away whenever the page is hidden.
    document.addEventListener('visibilitychange', this.#again);
    void this.#take();
  }

  async #take() {
    if (!('wakeLock' in navigator)) return;
    try {
      const lock = await navigator.wakeLock.request('screen');
      if (this.#wanted) this.#lock = lock; else await lock.release();
    } catch {
      // Refused on low battery or in the background: the conversation works without.
    }
  }

  release() {
    this.#wanted = false;
    document.removeEventListener('visibilitychange', this.#again);
    void this.#lock?.release().catch(() => {});
    this.#lock = null;
  }
}
