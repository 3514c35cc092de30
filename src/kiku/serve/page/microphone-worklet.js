// Runs in the browser's audio thread: gathers samples and posts them about every 40 ms.

const GATHER_S = 0.04;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Float32Array(Math.round(GATHER_S * sampleRate));
    this.count = 0;
    this.isOver = false;
    this.port.onmessage = () => {
      this.port.postMessage(this.samples.slice(0, this.count));
      this.port.postMessage(null); // the last
      this.isOver = true;
    };
  }

  process([channels]) {
    if (this.isOver) return false;
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.samples[this.count++] = sum / channels.length;
      if (this.count === this.samples.length) {
        this.port.postMessage(this.samples.slice());
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
