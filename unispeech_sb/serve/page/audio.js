// The microphone, WAV files, and what a waveform looks like.

// Samples from -1 to 1 as 16-bit integers.
function toIntegers(samples) {
  const integers = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i += 1) {
    integers[i] = Math.round(Math.max(-1, Math.min(1, samples[i])) * 32767);
  }
  return integers;
}

function encodeWav(blocks, rate) {
  const bytes = blocks.reduce((sum, block) => sum + block.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, word) => [...word].forEach(
    (letter, i) => header.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new File([header, ...blocks], "recording.wav", { type: "audio/wav" });
}

// A recording that goes on. onBlock gets 16-bit samples, the rate, the level
// and the seconds so far.
export class Microphone {
  static async open(onBlock) {
    if (!navigator.mediaDevices || !window.AudioWorkletNode) {
      throw new Error("Browsers give the microphone to pages of this machine "
        + "(localhost) and over https only.");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError"
        ? "This page may not use the microphone: the browser's settings of "
          + "the page have the permission."
        : "No microphone was found, or another program uses it.");
    }
    const microphone = new Microphone();
    await microphone.start(stream, onBlock);
    return microphone;
  }

  async start(stream, onBlock) {
    this.stream = stream;
    this.context = new AudioContext();
    this.rate = this.context.sampleRate;
    this.blocks = [];
    await this.context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(this.context, "recorder");
    this.port = node.port;
    node.port.onmessage = ({ data }) => {
      const block = toIntegers(data);
      this.blocks.push(block);
      const level = data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      const seconds = this.blocks.length * block.length / this.rate;
      onBlock(block, this.rate, level, seconds);
    };
    this.context.createMediaStreamSource(stream).connect(node);
    node.connect(this.context.destination); // it plays nothing, but runs
  }

  async stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    this.port.onmessage = null; // what is still on its way comes too late
    return encodeWav(this.blocks, this.rate);
  }
}

// Highest and lowest sample of each hundredth of a second; null where the
// browser does not know the format.
export async function readPeaks(file) {
  const context = new OfflineAudioContext(1, 1, 16000);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    return null;
  }
  const samples = buffer.getChannelData(0);
  const step = buffer.sampleRate / 100;
  const peaks = [];
  for (let start = 0; start < samples.length; start += step) {
    let low = 0, high = 0;
    const end = Math.min(samples.length, start + step);
    for (let i = Math.floor(start); i < end; i += 1) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    peaks.push([low, high]);
  }
  return { peaks, duration: buffer.duration };
}
