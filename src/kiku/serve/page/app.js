// The page: puts sound, connection, words and waveform together, and shows its state.

import { asJson, asSubtitles, asText, save } from "/page/save.js";
import { Microphone, readFile } from "/page/sound.js";
import { askServer, Talk } from "/page/talk.js";
import { Transcript } from "/page/transcript.js";
import { View } from "/page/view.js";
import { clock, Wave } from "/page/wave.js";

const CHECK_AGAIN_S = 5; // seconds between checks of a server that is not ready
const KEPT_KEY = "kiku-key"; // name of the key in this tab's storage
const ORIGIN =
  `The server accepts no sound from a page at ${location.host}. Open the page at the server's own ` +
  "address, or let the server be started with --allowed-origin.";

const STALLED =
  "The microphone gives no sound. Check that it is switched on, and that the browser uses the " +
  "right one.";

const $ = (id) => document.getElementById(id);
const show = (node, isShown) => {
  node.hidden = !isShown;
};

const player = new Audio();
const wave = new Wave($("wave"), seek);
const view = new View($("top"), $("words"));
const transcript = new Transcript($("text"), $("tip"), (time) => {
  if (wave.playS === null) return;
  if (time < wave.sound.keptFromS) return sayKept();
  seek(time);
  player.play();
});

let talk = null; // the connection, while words may come
let microphone = null; // the microphone, while it is open
let isStalled = false; // whether the microphone has given no sound for some seconds
let isPreparing = false; // whether a file is being read, or the microphone opened
let run = 0; // number of the recording: late answers to an earlier one are dropped
let name = "recording";
let model = null;
let counting = 0;
let remark = ""; // shown when the connection is open
let current = null; // the files that are heard
let kept = null; // files that wait for a key
let checking = 0; // timer of the next check of the server
let wasAway = false; // whether the server was not ready at the last check

// Notices: errors, and what the page waits for.

function say(text, kind = "info") {
  clearInterval(counting);
  const notice = $("notice");
  notice.dataset.kind = kind;
  // Some screen readers read a notice out only if it is shown first and filled after that.
  show(notice, Boolean(text));
  if (notice.textContent !== text) notice.textContent = text;
}

// Shows a notice and counts the seconds until the next try; screen readers leave them out.
function sayUntil(text, at, kind) {
  say(text, kind);
  const rest = document.createElement("span");
  rest.setAttribute("aria-hidden", "true");
  $("notice").append(" ", rest);
  const count = () => {
    const left = Math.ceil((at - Date.now()) / 1000);
    rest.textContent = left > 0 ? `Trying again in ${left} s.` : "Trying again now.";
  };
  count();
  counting = setInterval(count, 500);
}

function sayServer({ state, slots, reason }) {
  if (state === "full") {
    return slots === 1 ? "The server's only slot is taken." : `All ${slots} slots are taken.`;
  }
  if (state === "ending") return "The server is shutting down: it accepts no new sound.";
  if (state === "loading") return "The server is still loading its model.";
  if (state === "busy") return `The server is not ready: ${reason}.`;
  if (state === "crowded") return "The server accepts no further connections.";
  if (state === "often") return "The server got too many requests.";
  if (state === "origin") return ORIGIN;
  if (state === "down") return "The server cannot be reached.";
  if (state === "refused") return "The server refuses the connection.";
  return "The server did not answer.";
}

function sayMicrophone(error) {
  const texts = {
    NotAllowedError:
      "The browser does not let this page use the microphone. Allow it next to the address of " +
      "the page, and try again.",
    NotFoundError: "No microphone was found. Connect one, or choose a file.",
    NotReadableError: "The microphone cannot be opened: another program may be using it.",
    SecurityError:
      "Browsers allow the microphone only on pages from this machine or over https. You can choose " +
      "a file.",
  };
  say(texts[error.name] ?? `The microphone cannot be used: ${error.message}`, "error");
}

function sayKept() {
  const from = clock(wave.sound.keptFromS);
  say(`Only the last hour of sound from a microphone is kept. You can play it from ${from} on.`);
}

// The state of the page.

function update() {
  const isBusy = Boolean(talk) || isPreparing;
  const canPlay = wave.playS !== null;
  const focused = document.activeElement;
  show($("speak"), !isBusy);
  show($("listening"), Boolean(microphone));
  show($("choose"), !isBusy);
  show($("drop-hint"), !isBusy);
  show($("finalize"), Boolean(talk) && Boolean(microphone));
  show($("stop"), isBusy);
  show($("play"), canPlay);
  $("text").classList.toggle("playable", canPlay);
  $("text-help").textContent =
    "Use the arrow keys to move from word to word" + (canPlay ? ", and Enter to play from there." : ".");
  show($("meter"), Boolean(microphone));
  show($("empty"), !transcript.words.length && !transcript.partial);
  show($("below"), transcript.words.length > 0);
  // The keyboard's focus goes to the next button when the one that has it is hidden.
  if (focused?.hidden) $(isBusy ? "stop" : "speak").focus();
  wave.isGrowing = Boolean(microphone);
  wave.draw();
  view.isComing = Boolean(talk);
  document.body.dataset.state = isPreparing ? "preparing" : talk ? "talking" : "idle";
}

function progress() {
  const { sound } = wave;
  if (!sound) return;
  if (talk) wave.heardS = talk.heardS;
  wave.draw();
  const place = wave.playS ?? (microphone ? sound.seconds : wave.heardS);
  const all = microphone ? "" : ` of ${clock(sound.seconds)}`;
  $("place").textContent = clock(place) + all;
  let lag = "";
  if (talk && microphone) {
    lag = `${Math.max(0, sound.seconds - talk.heardS).toFixed(1)} s behind`;
  } else if (talk) {
    lag = `${Math.floor((100 * talk.heardS) / Math.max(sound.seconds, 0.01))} % heard`;
  }
  $("lag").textContent = lag;
}

function level() {
  if (!microphone) return;
  // From -60 dB to 0 dB.
  const db = 20 * Math.log10(microphone.sound.level + 1e-9);
  const part = Math.max(0, Math.min(1, 1 + db / 60));
  $("meter").style.setProperty("--level", part.toFixed(3));
  $("meter").setAttribute("aria-valuenow", Math.round(part * 100));
}

// From a recording's beginning to its end.

function clear() {
  run++;
  player.pause();
  if (player.src) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  wave.playS = null;
  wave.heardS = 0;
  wave.sound = null;
  isStalled = false;
  show($("sound"), false);
  $("play").textContent = "Play";
  transcript.clear();
  view.begin();
  remark = "";
  current = kept = null;
  say("");
}

function begin(sound) {
  wave.sound = sound;
  show($("sound"), true);
  const options = {
    key: key(),
    turns: $("turns").value,
    partials: $("partials").checked,
    hotwords: hotwords(),
  };
  talk = new Talk(sound, options, { message, state, progress });
}

async function speak() {
  if (talk || isPreparing) return;
  clear();
  const mine = run;
  isPreparing = true;
  update();
  try {
    const opened = await Microphone.open({
      heard: microphoneHeard,
      stalled: microphoneStalled,
      lost: microphoneLost,
    });
    if (mine !== run) return void opened.close(); // the user has stopped it meanwhile
    microphone = opened;
    name = "recording";
    begin(opened.sound);
  } catch (error) {
    if (mine === run) sayMicrophone(error);
  } finally {
    if (mine === run) isPreparing = false;
    update();
  }
}

function microphoneHeard() {
  if (isStalled) {
    isStalled = false;
    if ($("notice").textContent === STALLED) say("");
  }
  talk?.pump();
  level();
  progress();
}

function microphoneStalled() {
  if (!microphone) return;
  isStalled = true;
  say(STALLED, "warn");
}

function microphoneLost() {
  if (!microphone) return;
  say("The microphone was disconnected. The words so far are kept.", "error");
  stopMicrophone();
}

async function stopMicrophone() {
  const open = microphone;
  const mine = run;
  microphone = null;
  update();
  await open.close();
  if (mine !== run) return;
  offerPlayer();
  talk?.complete();
  progress();
}

// Takes files that were chosen or dropped, and says which of them are not heard.
function take(files) {
  const [file, ...others] = files;
  if (!file) return;
  if (talk || isPreparing) {
    const text =
      `${file.name} was not taken, because something else is being transcribed. Stop it first.`;
    if (isPreparing) remark = text;
    return say(text, "warn");
  }
  if (!$("key-form").hidden) {
    kept = files;
    return sayKey();
  }
  hear(file);
  current = files;
  if (others.length) remark = `Only ${file.name} is transcribed: choose one file at a time.`;
}

async function hear(file) {
  clear();
  const mine = run;
  isPreparing = true;
  say(`Reading ${file.name} …`);
  update();
  try {
    const sound = await readFile(file);
    if (mine !== run) return;
    say("");
    if (!sound.length) throw new Error("it is empty");
    name = file.name.replace(/\.[^.]+$/, "") || "recording";
    begin(sound);
    talk.complete();
    offerPlayer();
  } catch {
    if (mine === run) say(`This browser cannot read sound from ${file.name}.`, "error");
  } finally {
    if (mine === run) isPreparing = false;
    update();
    progress();
  }
}

// The first stop ends the sound and waits for the last words; the second waits for nothing.
function stop() {
  if (microphone) return stopMicrophone();
  if (isPreparing) run++;
  isPreparing = false;
  if (talk) talk.drop();
  else say("");
  update();
}

// Messages and states of the connection.

function message(event, offset) {
  const time = (event.time ?? 0) + offset;
  if (event.type === "word") {
    transcript.addWord({ ...event, start: event.start + offset, end: event.end + offset });
  } else if (event.type === "partial") transcript.setPartial(event.text);
  else if (event.type === "turn_start") transcript.turnStart(time);
  else if (event.type === "turn_end") transcript.turnEnd(time);
  else if (event.type === "finalized") transcript.setPartial(event.open_word?.text ?? "");
  else if (event.type === "warning") say(event.message);
  else if (event.type === "error") say(`The server says: ${event.message}`, "error");
  else if (event.type === "end") transcript.setPartial("");
  show($("empty"), !transcript.words.length && !transcript.partial);
  show($("below"), transcript.words.length > 0);
  progress();
}

function state(now, details) {
  if (now === "open") opened(details);
  else if (now === "lost" && details.wasOpen) say("The connection is lost.", "warn");
  else if (now === "waiting") {
    const kept = microphone ? " What you say in the meantime is kept." : "";
    const cut = details.wasOpen ? "The connection is lost. " : "";
    const kind = details.wasOpen || details.state === "full" ? "warn" : "error";
    sayUntil(cut + sayServer(details) + kept, details.at, kind);
  } else if (now === "plain") remark = "This server cannot show turns, so they are left out.";
  else if (now === "unexpected") say(`These words to favour are left out: ${details.why}`, "warn");
  if (["done", "dropped", "failed", "key", "origin"].includes(now)) over(now, details);
}

function opened({ message: ready, isRestart }) {
  model = ready.model;
  $("model").textContent = [ready.model, ...(ready.languages ?? [])].join(" · ");
  $("text").lang = ready.languages?.length === 1 ? ready.languages[0] : "";
  if (isRestart) transcript.restart(talk.lastWordEndS);
  if (remark || !isStalled) say(remark);
  else say(STALLED, "warn");
  remark = "";
}

function over(how, { why }) {
  talk = null;
  if (microphone) stopMicrophone();
  transcript.setPartial("");
  if (how === "failed") say(`The transcription ended: ${why}.`, "error");
  if (how === "origin") say(ORIGIN, "error");
  if (how === "key") {
    if (!transcript.words.length) kept = current;
    askKey();
  }
  if (how === "done" && wave.sound) wave.heardS = wave.sound.seconds;
  update();
  progress();
}

// The player.

function offerPlayer() {
  const recording = wave.sound?.wav();
  if (!recording || wave.playS !== null) return;
  player.src = URL.createObjectURL(recording);
  wave.playS = wave.sound.keptFromS;
  if (wave.playS > 0) sayKept();
  update();
}

function seek(time) {
  const { keptFromS } = wave.sound;
  wave.playS = Math.max(keptFromS, time);
  player.currentTime = wave.playS - keptFromS;
  transcript.mark(wave.playS);
  view.bring(transcript.now);
  progress();
}

function follow() {
  if (wave.playS === null) return;
  wave.playS = wave.sound.keptFromS + player.currentTime;
  transcript.mark(player.ended ? null : wave.playS);
  if (!player.paused) view.follow(transcript.now);
  $("play").textContent = player.paused ? "Play" : "Pause";
  progress();
}

function followSmoothly() {
  follow();
  if (!player.paused) requestAnimationFrame(followSmoothly);
}

player.addEventListener("play", followSmoothly);
// These come also while the browser draws nothing.
for (const kind of ["timeupdate", "pause", "ended"]) player.addEventListener(kind, follow);

// Key and options.

// Removes invisible characters, which pasted text may have.
const clean = (text) => text.replace(/\p{Cf}/gu, "").trim();
const key = () => clean($("key-option").value);
const hotwords = () =>
  $("hotwords").value.split(/[,\n]/).map((one) => one.trim()).filter(Boolean);

function keep(value) {
  $("key-option").value = value;
  try {
    if (value) sessionStorage.setItem(KEPT_KEY, value);
    else sessionStorage.removeItem(KEPT_KEY);
  } catch {
    // A browser without storage: the page asks for the key again next time.
  }
}

function askKey() {
  showKeyForm(true);
  sayKey();
  $("key").focus();
}

function sayKey() {
  const wrong = key() ? "The server does not accept this key. " : "";
  $("key-said").classList.toggle("wrong", Boolean(wrong));
  const waits = kept ? `${kept[0].name} will be transcribed once you have given the key.` : "";
  $("key-said").textContent = wrong + waits;
}

function showKeyForm(isShown) {
  show($("key-form"), isShown);
  show($("drop"), !isShown);
  show($("options"), !isShown);
  show($("words"), !isShown || transcript.words.length > 0);
}

async function checkServer() {
  clearTimeout(checking);
  const found = await askServer(key());
  if (talk || isPreparing) return;
  if (found.state === "key") askKey();
  else if (found.state !== "down") showKeyForm(false); // the server has taken the key
  if (found.state === "origin") say(ORIGIN, "error");
  else if (!["ready", "full", "key"].includes(found.state)) {
    const waitS = Math.max(CHECK_AGAIN_S, found.waitS ?? 0);
    sayUntil(sayServer(found), Date.now() + waitS * 1000, "error");
    checking = setTimeout(checkServer, waitS * 1000);
    wasAway = true;
  } else if (wasAway) {
    wasAway = false;
    say("");
  }
  if (kept && $("key-form").hidden) take(kept);
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keep(clean($("key").value));
  $("key-said").textContent = "";
  await checkServer();
  if ($("key-form").hidden) $(talk || isPreparing ? "stop" : "speak").focus();
});
$("key-option").addEventListener("change", () => keep(key()));
$("hotwords").addEventListener("change", () => talk?.configure(hotwords()));

$("speak").addEventListener("click", speak);
$("stop").addEventListener("click", stop);
$("finalize").addEventListener("click", () => talk?.finalize());
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  take([...$("file").files]);
  $("file").value = "";
});
$("play").addEventListener("click", () => (player.paused ? player.play() : player.pause()));

$("save-txt").addEventListener("click", () =>
  save(`${name}.txt`, "text/plain;charset=utf-8", asText(transcript)),
);
$("save-srt").addEventListener("click", () =>
  save(`${name}.srt`, "application/x-subrip", asSubtitles(transcript)),
);
$("save-json").addEventListener("click", () =>
  save(
    `${name}.json`,
    "application/json",
    asJson(transcript, { model, duration: wave.sound?.seconds ?? 0 }),
  ),
);

// A file may be dropped anywhere.
let depth = 0;
const hover = (isOver) => $("drop").classList.toggle("over", isOver);
addEventListener("dragenter", () => hover(++depth > 0));
addEventListener("dragleave", () => hover(--depth > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  hover(false);
  take([...event.dataTransfer.files]);
});

try {
  $("key-option").value = sessionStorage.getItem(KEPT_KEY) ?? "";
} catch {
  // A browser without storage.
}
update();
checkServer();
