// Record the microphone and turn the recording into 16 kHz mono WAV, so that the service needs no other format.

const RATE = 16000;
const MOST_SECONDS = 30;

/** Reason why recording is not possible, or null. */
export function whyNoRecording() {
  if (!window.isSecureContext) return "Recording needs HTTPS or an address on this computer.";
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return "This browser cannot record.";
  return null;
}

/** Start a recording: {stop() -> Promise<Blob>, cancel(), level() in [0, 1], seconds()}. Ends by itself after 30 s. */
export async function record({ onEnd }) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => { if (event.data.size) pieces.push(event.data); });
  const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
  const started = performance.now();
  recorder.start(250);
  const release = () => { clearTimeout(timer); stream.getTracks().forEach((track) => track.stop()); context.close().catch(() => null); };
  const timer = setTimeout(() => onEnd?.(), MOST_SECONDS * 1000);
  return {
    level() {
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const value of samples) sum += value * value;
      return Math.min(1, Math.sqrt(sum / samples.length) * 4);
    },
    seconds: () => (performance.now() - started) / 1000,
    cancel() { if (recorder.state !== "inactive") recorder.stop(); release(); },
    async stop() {
      if (recorder.state !== "inactive") recorder.stop();
      await ended;
      release();
      return toWav(await new Blob(pieces, { type: recorder.mimeType }).arrayBuffer());
    },
  };
}

async function toWav(encoded) {
  const context = new AudioContext();
  let sound;
  try { sound = await context.decodeAudioData(encoded); } finally { context.close().catch(() => null); }
  const length = Math.max(1, Math.ceil(sound.duration * RATE));
  const offline = new OfflineAudioContext(1, length, RATE);
  const source = offline.createBufferSource();
  source.buffer = sound;
  source.connect(offline.destination);
  source.start();
  return wav((await offline.startRendering()).getChannelData(0));
}

/** 16-bit PCM WAV of samples in [-1, 1]. */
export function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (offset, text) => [...text].forEach((letter, place) => view.setUint8(offset + place, letter.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, place) => view.setInt16(44 + 2 * place, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}
