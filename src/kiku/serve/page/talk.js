// The connection to the server: sends sound, hands on what comes, and comes back after a cut.
//
// All sound stays in `sound` until the end, so a cut loses none. A session that the server still
// knows, or finds in its store, goes on where it was; one that the server has forgotten starts again
// after the last word.

const AHEAD_S = 20; // seconds of sound that are sent before the server has heard them
const MAX_BUFFERED = 1 << 20; // bytes
const FIRST_WAIT_S = 0.5;
const MAX_WAIT_S = 15;
const FULL_WAIT_S = 5;
const WATCH_S = 5;
const OPEN_S = 15; // seconds within which a connection opens
const GONE_S = 30; // seconds without an answer after which the server is taken for gone
const ASK_S = 10;
const MANY_REFUSALS = 4;
const MAX_GAP_S = 3600; // the longest gap that the server takes at once

// Reasons of /ready for which the page has a sentence of its own.
const REASONS = { draining: "ending", loading: "loading" };

// Close codes after which the page connects again.
const AGAIN = new Set([1001, 1005, 1006, 1012, 1013]);

export class Talk {
  // `on` has message(message, offset), state(name, details) and progress().
  constructor(sound, { key = "", turns = "", partials = true, hotwords = [] }, on) {
    this.sound = sound;
    this.key = key;
    this.turns = turns;
    this.partials = partials;
    // Hotwords are sent once the connection is open: an address has no room for many, and the
    // server would refuse the whole stream for a list that it does not take.
    this.hotwords = hotwords;
    this.hotwordsBefore = []; // the list that stays if the server does not take the new one
    this.hasSentHotwords = false;
    this.isUnsure = false; // whether the server may still refuse the hotwords
    this.unsureUntilS = 0; // it takes them if it hears sound after this time
    this.on = on;
    this.session = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.count = 0; // messages of the session that the server counts
    this.offset = 0; // samples of `sound` before the first one of the session
    this.sent = 0; // samples of `sound` that were sent, or need not be
    this.heardS = 0;
    this.lastWordEndS = 0; // the end of the last word
    this.tries = 0;
    this.refusals = 0;
    this.isComplete = false; // no more sound will be added
    this.hasClosed = false; // whether the server was told so
    this.isOver = false;
    this.wasOpen = false;
    this.isReady = false; // the server has said where its sound ends
    this.unsent = []; // commands to be sent when the server is ready
    this.timer = 0;
    this.heardAt = 0; // when the last message came, or the connection was begun
    this.watcher = setInterval(() => this.watch(), WATCH_S * 1000);
    this.online = () => this.timer && this.connect();
    addEventListener("online", this.online);
    this.connect();
  }

  get url() {
    const query = new URLSearchParams({
      encoding: "s16le", rate: this.sound.rate, channels: 1, session: this.session,
    });
    if (this.partials) query.set("partials", "true");
    if (this.turns) query.set("turns", this.turns);
    if (this.wasOpen) {
      query.set("after", this.count);
      // Another process may go on with the session, and know fewer words than the page.
      query.set("told", Math.max(0, this.lastWordEndS - this.offset / this.sound.rate));
    }
    const url = new URL("/api/stream", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = query;
    return url;
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = 0;
    const { url } = this;
    let socket;
    try {
      socket = new WebSocket(url, this.key ? ["token", this.key] : []);
    } catch {
      url.searchParams.set("auth_id", this.key); // a key that a subprotocol cannot spell
      socket = new WebSocket(url);
    }
    this.socket = socket;
    this.isReady = false;
    this.heardAt = Date.now();
    socket.onmessage = ({ data }) => {
      if (socket === this.socket && !this.isOver) this.received(JSON.parse(data));
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.closed(event, this.isReady);
    };
  }

  received(message) {
    this.heardAt = Date.now();
    if (message.type === "ready") return this.ready(message);
    const offset = this.offset / this.sound.rate;
    if (message.type === "lag") {
      this.heardS = offset + message.heard_s;
      if (this.heardS > this.unsureUntilS) this.isUnsure = false;
      this.pump();
      return this.on.progress();
    }
    this.count++;
    if (message.type === "word") this.lastWordEndS = offset + message.end;
    if (message.type === "end") this.heardS = this.sound.seconds;
    if (message.type === "error" && this.isUnsure) return this.refuseHotwords(message);
    this.on.message(message, offset);
    if (message.type === "end") this.finish("done");
  }

  ready(message) {
    this.tries = this.refusals = 0;
    this.hasClosed = false;
    const isRestart = message.taken_s === 0 && this.count > 0;
    if (isRestart) {
      // The server has forgotten the session: start again after the last word. The end that it
      // gave for that word is a little too early, and the rest would be heard as another word.
      const startS = this.lastWordEndS > 0 ? this.sound.quietAfter(this.lastWordEndS) : 0;
      const first = Math.min(this.sound.length, Math.round(startS * this.sound.rate));
      this.offset = first;
      this.count = 0;
    }
    if (message.taken_s === 0) {
      this.offset = Math.max(this.sound.dropped, this.offset);
      this.heardS = this.offset / this.sound.rate;
    }
    this.sent = this.offset + Math.round(message.taken_s * this.sound.rate);
    this.wasOpen = this.isReady = true;
    this.on.state("open", { message, isRestart });
    if (this.hotwords.length || this.hasSentHotwords) this.sendHotwords();
    this.pump();
    for (const one of this.unsent.splice(0)) this.command(one);
  }

  // Sends the sound that waits, and no more than the server can take. Nothing is sent before the
  // server's `ready`, which says from where on it needs sound.
  pump() {
    const { socket, sound } = this;
    if (socket?.readyState !== WebSocket.OPEN || !this.isReady || this.isOver) return;
    while (
      this.sent / sound.rate < this.heardS + AHEAD_S &&
      socket.bufferedAmount < MAX_BUFFERED
    ) {
      if (this.sent < sound.dropped) {
        this.skip();
        continue;
      }
      const samples = sound.from(this.sent);
      if (!samples) break;
      socket.send(samples);
      this.sent += samples.length;
    }
    if (this.isComplete && !this.hasClosed && this.sent >= sound.length) {
      this.hasClosed = true;
      this.command({ type: "close" });
    }
  }

  // Sends silence in the place of sound that is no longer kept, so that times stay right.
  skip() {
    const { rate, dropped } = this.sound;
    const samples = Math.min(dropped - this.sent, MAX_GAP_S * rate);
    this.command({ type: "gap", seconds: samples / rate });
    this.sent += samples;
  }

  // Drops a connection on which an answer is due and nothing comes: it is dead.
  watch() {
    const { socket } = this;
    if (!socket || Date.now() - this.heardAt < this.patienceS * 1000) return;
    this.socket = null;
    socket.close();
    this.comeBack(false);
  }

  // Seconds for which nothing may come from the server.
  get patienceS() {
    const { readyState } = this.socket;
    if (readyState === WebSocket.CONNECTING) return OPEN_S;
    const isBehind = this.hasClosed || this.sent / this.sound.rate > this.heardS + 1;
    const isDue = readyState === WebSocket.OPEN && (!this.isReady || isBehind);
    return isDue ? GONE_S : Infinity;
  }

  command(message) {
    const isOpen = this.socket?.readyState === WebSocket.OPEN;
    if (isOpen && this.isReady) this.socket.send(JSON.stringify(message));
    else if (message.type !== "close") this.unsent.push(message); // `ready` leads to another close
  }

  finalize() {
    this.command({ type: "finalize", tag: "page" });
  }

  configure(hotwords) {
    this.hotwordsBefore = this.hotwords;
    this.hotwords = hotwords;
    if (this.isReady) this.sendHotwords(); // else `ready` sends them
  }

  sendHotwords() {
    this.hasSentHotwords = this.isUnsure = true;
    this.unsureUntilS = this.sent / this.sound.rate + 0.001;
    this.command({ type: "configure", hotwords: this.hotwords });
  }

  // Takes back hotwords that the server refuses, for later connections too.
  refuseHotwords({ message }) {
    this.isUnsure = false;
    this.hotwords = this.hotwordsBefore;
    this.hotwordsBefore = [];
    this.on.state("unexpected", { why: message });
  }

  // Notes that all sound has been added.
  complete() {
    this.isComplete = true;
    if (this.timer) this.on.state("waiting", this.waiting); // still without a connection
    else this.pump();
  }

  // Ends the talk now, without the words that are still to come.
  drop() {
    const { socket } = this;
    this.finish("dropped");
    socket?.close(1000);
  }

  finish(state, details = {}) {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.timer);
    clearInterval(this.watcher);
    removeEventListener("online", this.online);
    this.on.state(state, details);
  }

  closed({ code, reason }, wasReady) {
    if (this.isOver) return;
    if (!wasReady || AGAIN.has(code)) return this.comeBack(!wasReady);
    this.finish("failed", { why: reason || `the server closed the connection (${code})` });
  }

  // Connects again. `isRefused`: the connection was closed before the server was ready.
  async comeBack(isRefused) {
    this.isReady = this.isUnsure = false;
    this.on.state("lost", { wasOpen: this.wasOpen });
    const found = await askServer(this.key);
    if (this.isOver) return;
    if (found.state === "key") return this.finish("key", {});
    if (found.state === "origin") return this.finish("origin", {});
    if (isRefused && found.state === "ready") return this.refused(found);
    this.again(found);
  }

  // The server refuses the stream, though it has a free slot. It may have been full until a moment
  // ago: ask for the same again first, then without turns. If the stream has had turns already, ask
  // more often before they are left out.
  refused(found) {
    const count = ++this.refusals;
    if (this.turns && count > (this.wasOpen ? MANY_REFUSALS : 1)) {
      this.turns = "";
      this.on.state("plain", {});
      return this.connect();
    }
    if (!this.wasOpen && count > MANY_REFUSALS) {
      return this.finish("failed", { why: "the server refuses the stream" });
    }
    this.again({ ...found, state: "refused" });
  }

  again(found) {
    let wait = Math.min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** this.tries++);
    if (found.state === "full") wait = FULL_WAIT_S;
    if (found.waitS > 0) wait = found.waitS;
    this.waiting = { ...found, at: Date.now() + wait * 1000, wasOpen: this.wasOpen };
    this.on.state("waiting", this.waiting);
    this.timer = setTimeout(() => this.connect(), wait * 1000);
  }
}

// Asks how the server is: "ready", "full", "key" (it needs a key, or another one), "origin" (it takes
// no page from this address), "often" (it was asked too often), "crowded" (too many connections),
// "ending", "loading", "busy" (`reason` says why) or "down". Browsers do not tell a page why a socket
// was refused, so this asks the same path by a POST, which names the page's address as a socket does.
export async function askServer(key) {
  try {
    const answer = await askWithKey("/api/stream", key);
    const { status } = answer;
    if (status === 401) return { state: "key" };
    if (status === 403) return { state: "origin" };
    if (status === 429) return { state: "often", waitS: Number(answer.headers.get("Retry-After")) };
    const { ready, reason, slots, slots_used: used } = await (await ask("/ready")).json();
    if (!ready) return { state: REASONS[reason] ?? "busy", reason };
    if (slots > 0 && used >= slots) return { state: "full", slots };
    return { state: answer.ok ? "ready" : "crowded" };
  } catch {
    return { state: "down" };
  }
}

function askWithKey(path, key) {
  const method = "POST";
  if (!key) return ask(path, { method });
  let headers;
  try {
    headers = new Headers({ Authorization: `Bearer ${key}` });
  } catch {
    return ask(`${path}?auth_id=${encodeURIComponent(key)}`, { method }); // no header can spell it
  }
  return ask(path, { method, headers });
}

// Fetches with a time limit: over a dead network a request neither succeeds nor fails.
function ask(path, options = {}) {
  const signal = AbortSignal.timeout?.(ASK_S * 1000);
  return fetch(path, { cache: "no-store", signal, ...options });
}
