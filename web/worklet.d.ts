/** What an AudioWorkletGlobalScope has beyond the DOM library; the worklet files are checked against it. */
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;
declare const sampleRate: number;
