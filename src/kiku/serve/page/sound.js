// Sound from a microphone or a file as samples of 16 bits, kept to be drawn, sent again and played.

export const RATE = 24000;
const PEAKS_PER_S = 50;
const PEAKS_PER_GROUP = 50;
const MICROPHONE_S = 3600; // seconds of a microphone that are kept
const STALL_S = 3;
const QUIET_S = 0.08;
const QUIET_WITHIN_S = 0.6;
const PIECE = RATE / 2;

export class Sound {
  // Keeps the last `maxS` seconds.
  constructor(rate = RATE, maxS = Infinity) {
    this.rate = rate;
    this.maxS = maxS;
    this.pieces = []; // {first, samples}, in order
    this.length = 0; // samples that came
    this.dropped = 0; // samples that are no longer kept
    this.peaks = []; // PEAKS_PER_S peaks a second, from 0 to 1
    this.groups = []; // the highest of PEAKS_PER_GROUP peaks
    this.level = 0;
    this.peak = 0;
    this.peakCount = 0;
  }

  get seconds() {
    return this.length / this.rate;
  }

  // The time from which on sound is kept.
  get keptFromS() {
    return this.dropped / this.rate;
  }

  // Adds samples between -1 and 1.
  add(floats) {
    if (!floats.length) return;
    const samples = new Int16Array(floats.length);
    const perPeak = Math.round(this.rate / PEAKS_PER_S);
    let power = 0;
    for (let i = 0; i < floats.length; i++) {
      const value = Math.max(-1, Math.min(1, floats[i]));
      samples[i] = Math.round(value * 32767);
      power += value * value;
      this.peak = Math.max(this.peak, Math.abs(value));
      if (++this.peakCount === perPeak) this.addPeak();
    }
    this.level = Math.sqrt(power / floats.length);
    this.pieces.push({ first: this.length, samples });
    this.length += samples.length;
    while (this.length - this.dropped > this.maxS * this.rate && this.pieces.length > 1) {
      this.dropped += this.pieces.shift().samples.length;
    }
  }

  addPeak() {
    const group = Math.floor(this.peaks.length / PEAKS_PER_GROUP);
    this.groups[group] = Math.max(this.groups[group] ?? 0, this.peak);
    this.peaks.push(this.peak);
    this.peak = this.peakCount = 0;
  }

  // The highest peak between two times.
  peakBetween(start, end) {
    let first = Math.floor(start * PEAKS_PER_S);
    const last = Math.min(this.peaks.length, Math.max(first + 1, Math.ceil(end * PEAKS_PER_S)));
    let found = 0;
    while (first < last) {
      if (first % PEAKS_PER_GROUP === 0 && first + PEAKS_PER_GROUP <= last) {
        found = Math.max(found, this.groups[first / PEAKS_PER_GROUP]);
        first += PEAKS_PER_GROUP;
      } else {
        found = Math.max(found, this.peaks[first++]);
      }
    }
    return found;
  }

  // The time of the first quiet place soon after `time`; `time` itself if there is none.
  quietAfter(time) {
    const loud = this.peakBetween(Math.max(0, time - 1), time + QUIET_WITHIN_S);
    const limit = Math.max(0.02, loud / 8);
    for (let at = time; at < time + QUIET_WITHIN_S; at += 1 / PEAKS_PER_S) {
      if (this.peakBetween(at, at + QUIET_S) < limit) return at + QUIET_S / 2;
    }
    return time;
  }

  // The samples from `first` on that lie in one piece, at most `max`; null if there are none.
  from(first, max = PIECE) {
    if (first >= this.length) return null;
    const { pieces } = this;
    let low = 0;
    let high = pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (pieces[middle].first <= first) low = middle;
      else high = middle - 1;
    }
    const begin = Math.max(0, first - pieces[low].first);
    return pieces[low].samples.subarray(begin, begin + max);
  }

  // The sound that is kept as a WAV file, in which places are exact; null if no sound has come.
  wav() {
    if (!this.length) return null;
    const bytes = (this.length - this.dropped) * 2;
    const head = new DataView(new ArrayBuffer(44));
    const words = [
      [0, 0x52494646], [8, 0x57415645], [12, 0x666d7420], [36, 0x64617461], // RIFF WAVE fmt data
    ];
    for (const [at, word] of words) head.setUint32(at, word, false);
    head.setUint32(4, 36 + bytes, true);
    head.setUint32(16, 16, true);
    head.setUint16(20, 1, true);
    head.setUint16(22, 1, true);
    head.setUint32(24, this.rate, true);
    head.setUint32(28, this.rate * 2, true);
    head.setUint16(32, 2, true);
    head.setUint16(34, 16, true);
    head.setUint32(40, bytes, true);
    return new Blob([head, ...this.pieces.map((one) => one.samples)], { type: "audio/wav" });
  }
}

// The sound of a file, mixed to one channel.
export async function readFile(file) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const decoded = await context.decodeAudioData(await file.arrayBuffer());
  const sound = new Sound(RATE);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) =>
    decoded.getChannelData(i),
  );
  for (let first = 0; first < decoded.length; first += PIECE) {
    const mixed = channels[0].slice(first, first + PIECE);
    for (let c = 1; c < channels.length; c++) {
      for (let i = 0; i < mixed.length; i++) mixed[i] += channels[c][first + i];
    }
    for (let i = 0; i < mixed.length; i++) mixed[i] /= channels.length;
    sound.add(mixed);
    if ((first / PIECE) % 200 === 199) await new Promise((done) => setTimeout(done)); // draw
  }
  return sound;
}

// An open microphone. `heard` is called when samples have come, `stalled` when none have come for
// some seconds, `lost` when it is unplugged.
export class Microphone {
  static async open(on) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new DOMException("not a safe page", "SecurityError");
    }
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false },
    });
    let context = new AudioContext({ sampleRate: RATE });
    let source;
    try {
      try {
        source = context.createMediaStreamSource(stream);
      } catch {
        // Firefox cannot convert the sound of a microphone to another rate.
        await context.close();
        context = new AudioContext();
        source = context.createMediaStreamSource(stream);
      }
      await context.audioWorklet.addModule("/page/microphone-worklet.js");
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      context.close();
      throw error;
    }
    return new Microphone(stream, context, source, on);
  }

  constructor(stream, context, source, on) {
    this.stream = stream;
    this.context = context;
    this.sound = new Sound(context.sampleRate, MICROPHONE_S);
    this.node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    this.ended = new Promise((done) => {
      this.node.port.onmessage = ({ data }) => {
        if (data === null) return done();
        if (!data.length) return;
        this.sound.add(data);
        this.expectSound();
        on.heard();
      };
    });
    stream.getAudioTracks()[0].onended = on.lost;
    this.on = on;
    this.expectSound();
    source.connect(this.node);
    context.resume();
  }

  // A microphone may be open and give no sound: a switch on it, a wrong device, a driver that hangs.
  expectSound() {
    clearTimeout(this.stallTimer);
    this.stallTimer = setTimeout(this.on.stalled, STALL_S * 1000);
  }

  // Closes the microphone; `sound` then has everything until now.
  async close() {
    this.node.port.postMessage("end");
    await Promise.race([this.ended, new Promise((done) => setTimeout(done, 500))]);
    clearTimeout(this.stallTimer);
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
  }
}
