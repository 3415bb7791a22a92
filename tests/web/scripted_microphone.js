// A microphone whose voice the test controls: speak(true) makes a 300 Hz tone, speak(false) near silence.
// getUserMedia answers with it, so one Chromium can serve every test; the real capture path has a test of its own.
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const tone = new OscillatorNode(context, { frequency: 300 });
  const level = new GainNode(context, { gain: 0 });
  // A live microphone is never exactly silent.
  const hum = new OscillatorNode(context, { frequency: 50 });
  const little = new GainNode(context, { gain: 0.002 });
  const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  tone.connect(level).connect(out);
  hum.connect(little).connect(out);
  tone.start();
  hum.start();
  await context.resume();
  globalThis.speak = (on) => { level.gain.value = on ? 0.4 : 0; };
  return out.stream;
};
