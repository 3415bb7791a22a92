// @ts-check
/** The microphone and speaker pickers: named after permission, switched live. */
import { byId } from './dom.js';

/** @typedef {import('/client/lib/voice-client.js').VoiceClient} VoiceClient */

export class Devices {
  #microphone = byId('microphone', HTMLSelectElement);
  #speaker = byId('speaker', HTMLSelectElement);

  /** @param {VoiceClient} client */
  constructor(client) {
    this.client = client;
    const canChoose = typeof AudioContext !== 'undefined' && 'setSinkId' in AudioContext.prototype;
    this.#speaker.disabled = !canChoose;
    byId('speaker-note', HTMLElement).hidden = canChoose;
    this.#microphone.addEventListener('change', () => { if (client.hasMicrophone) void client.setMicrophone(this.#microphone.value); });
    this.#speaker.addEventListener('change', () => this.useSpeaker());
    navigator.mediaDevices?.addEventListener('devicechange', () => void this.list());
  }

  get microphone() { return this.#microphone.value; }

  useSpeaker() { void this.client.setSpeaker(this.#speaker.value).catch(() => { this.#speaker.value = ''; }); }

  /** Names are empty until the microphone was allowed; then the list is worth reading again. */
  async list() {
    const all = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
    this.#fill(this.#microphone, all.filter((one) => one.kind === 'audioinput'));
    this.#fill(this.#speaker, all.filter((one) => one.kind === 'audiooutput'));
  }

  /** @param {HTMLSelectElement} picker @param {MediaDeviceInfo[]} devices */
  #fill(picker, devices) {
    const chosen = picker.value;
    picker.length = 1;
    for (const { deviceId, label } of devices) if (label && deviceId && deviceId !== 'default') picker.add(new Option(label, deviceId));
    picker.value = chosen;
    if (picker.value !== chosen) picker.value = '';
  }
}
