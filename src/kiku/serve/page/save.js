// The text as a file: plain, as subtitles, or as JSON with times and probabilities.

const CUE_CHARACTERS = 84; // two lines of a subtitle
const LINE_CHARACTERS = 42;
const CUE_S = 7;
const CUE_PAUSE_S = 1.5;

const joined = (words) => words.map((one) => one.text).join(" ");

export function asText(transcript) {
  return transcript.paragraphs.map((one) => joined(one.words) + "\n").join("\n");
}

export function asSubtitles(transcript) {
  const cues = transcript.paragraphs.flatMap(({ words }) => cuesOf(words));
  return cues
    .map((words, i) => {
      // A cue begins only after the one before it has ended.
      const next = cues[i + 1]?.[0].start ?? Infinity;
      const end = Math.max(words[0].start + 0.1, Math.min(words.at(-1).end, next));
      return `${i + 1}\n${clock(words[0].start)} --> ${clock(end)}\n${lines(words)}\n`;
    })
    .join("\n");
}

export function asJson(transcript, { duration, model }) {
  const turns = transcript.paragraphs.map(({ start, end, words }) => ({
    start: seconds(start),
    end: seconds(end ?? words.at(-1).end),
    text: joined(words),
  }));
  const words = transcript.words.map(({ text, start, end, probability }) => ({
    text, start: seconds(start), end: seconds(end), probability,
  }));
  const text = joined(transcript.words);
  return JSON.stringify({ model, duration: seconds(duration), text, turns, words }, null, 2) + "\n";
}

export function save(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function cuesOf(words) {
  const cues = [];
  for (const word of words) {
    const cue = cues.at(-1);
    const fits =
      cue &&
      joined(cue).length + 1 + word.text.length <= CUE_CHARACTERS &&
      word.end - cue[0].start <= CUE_S &&
      word.start - cue.at(-1).end <= CUE_PAUSE_S;
    if (fits) cue.push(word);
    else cues.push([word]);
  }
  return cues;
}

function lines(words) {
  const text = joined(words);
  if (text.length <= LINE_CHARACTERS) return text;
  const spaces = [...text.matchAll(/ /g)].map((one) => one.index);
  if (!spaces.length) return text;
  const half = text.length / 2;
  const at = spaces.reduce((a, b) => (Math.abs(b - half) < Math.abs(a - half) ? b : a));
  return `${text.slice(0, at)}\n${text.slice(at + 1)}`;
}

function clock(time) {
  const ms = Math.round(time * 1000);
  const part = (value, digits) => String(Math.floor(value)).padStart(digits, "0");
  const h = part(ms / 3_600_000, 2);
  const m = part((ms / 60_000) % 60, 2);
  return `${h}:${m}:${part((ms / 1000) % 60, 2)},${part(ms % 1000, 3)}`;
}

const seconds = (time) => Math.round(time * 1000) / 1000;
