// The connection to the server: sends sound, hands on what comes, and comes back after a cut.
//
// All sound stays in `sound` until the end, so a cut loses none: a session that the server still
// knows, or finds in its store, goes on where it was; one that is forgotten begins anew behind the
// last word.

const AHEAD_S = 20; // of sound on its way that is not heard yet
const MOST_BUFFERED = 1 << 20; // bytes
const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 15;
const FULL_WAIT_S = 5;
const LOOK_S = 5;
const OPEN_S = 15; // within which a connection is open
const GONE_S = 30; // without an answer to what was sent
const ASK_S = 10;
const MANY_REFUSALS = 4;
const LONGEST_GAP_S = 3600; // that the server takes at once

// What /ready says that has a sentence of its own.
const REASONS = { draining: "ending", loading: "loading" };

const AGAIN = new Set([1001, 1005, 1006, 1012, 1013]); // closes after which one may come back

export class Talk {
  // `on` has message(message, offset), state(name, details) and progress().
  constructor(sound, { key = "", turns = "", partials = true, hotwords = [] }, on) {
    this.sound = sound;
    this.key = key;
    this.turns = turns;
    this.partials = partials;
    // These are told when the connection is open: an address has not room for many, and a list
    // that the server does not take would keep the whole stream out.
    this.hotwords = hotwords;
    this.hotwordsBefore = []; // which hold where it does not take those
    this.hasTold = false; // of words to expect
    this.isUnsure = false; // they may yet be refused:
    this.unsureUntilS = 0; // until sound behind them is heard
    this.on = on;
    this.session = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.count = 0; // counted messages of the session
    this.generation = 0; // of its owner, as the last greeting said
    this.offset = 0; // samples before the session's first
    this.sent = 0; // samples of `sound`
    this.heardS = 0;
    this.toldS = 0; // the end of the last word
    this.tries = 0;
    this.refusals = 0;
    this.isComplete = false; // no more sound will be added
    this.hasClosed = false; // and that was told
    this.isOver = false;
    this.wasOpen = false;
    this.isReady = false; // the server has said where its sound ends
    this.untold = []; // asked for while it was not ready
    this.timer = 0;
    this.heardAt = 0; // when the last message came, or the connection was begun
    this.watcher = setInterval(() => this.watch(), LOOK_S * 1000);
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
      // Another process may go on, and know less than was told.
      query.set("told", Math.max(0, this.toldS - this.offset / this.sound.rate));
      if (this.generation) query.set("generation", this.generation);
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
    if (message.type === "word") this.toldS = offset + message.end;
    if (message.type === "end") this.heardS = this.sound.seconds;
    if (message.type === "error" && this.isUnsure) return this.refuseHotwords(message);
    this.on.message(message, offset);
    if (message.type === "end") this.finish("done");
  }

  ready(message) {
    this.tries = this.refusals = 0;
    this.hasClosed = false;
    this.generation = message.generation ?? 0;
    const isKnown = message.resumed ?? message.taken_s > 0; // older servers do not say it
    const isAnew = !isKnown && this.count > 0;
    if (isAnew) {
      // The server knows the session no more: begin anew behind the last word. It is told to end
      // a little before its sound does, which would be heard as another word.
      const behind = this.toldS > 0 ? this.sound.quietAfter(this.toldS) : 0;
      const first = Math.min(this.sound.length, Math.round(behind * this.sound.rate));
      this.offset = first;
      this.count = 0;
    }
    if (message.taken_s === 0) {
      this.offset = Math.max(this.sound.dropped, this.offset);
      this.heardS = this.offset / this.sound.rate;
    }
    this.sent = this.offset + Math.round(message.taken_s * this.sound.rate);
    this.wasOpen = this.isReady = true;
    this.on.state("open", { message, isAnew });
    if (this.hotwords.length || this.hasTold) this.tellHotwords();
    this.pump();
    for (const one of this.untold.splice(0)) this.tell(one);
  }

  // Sends what there is to send, and no more than the server can take. A socket that is open but
  // has not said `ready` gets nothing: what it lacks begins where `ready` says.
  pump() {
    const { socket, sound } = this;
    if (socket?.readyState !== WebSocket.OPEN || !this.isReady || this.isOver) return;
    while (
      this.sent / sound.rate < this.heardS + AHEAD_S &&
      socket.bufferedAmount < MOST_BUFFERED
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
      this.tell({ type: "close" });
    }
  }

  // Sound that is no longer kept is silence to the server, so that times stay right.
  skip() {
    const { rate, dropped } = this.sound;
    const samples = Math.min(dropped - this.sent, LONGEST_GAP_S * rate);
    this.tell({ type: "gap", seconds: samples / rate });
    this.sent += samples;
  }

  // A connection that is dead without a word is noticed: an answer is due, and nothing comes.
  watch() {
    const { socket } = this;
    if (!socket || Date.now() - this.heardAt < this.patienceS * 1000) return;
    this.socket = null;
    socket.close();
    this.comeBack(false);
  }

  // How long nothing may come.
  get patienceS() {
    const { readyState } = this.socket;
    if (readyState === WebSocket.CONNECTING) return OPEN_S;
    const isBehind = this.hasClosed || this.sent / this.sound.rate > this.heardS + 1;
    const isDue = readyState === WebSocket.OPEN && (!this.isReady || isBehind);
    return isDue ? GONE_S : Infinity;
  }

  tell(message) {
    const isOpen = this.socket?.readyState === WebSocket.OPEN;
    if (isOpen && this.isReady) this.socket.send(JSON.stringify(message));
    else if (message.type !== "close") this.untold.push(message); // `ready` brings it again
  }

  finalize() {
    this.tell({ type: "finalize", tag: "page" });
  }

  configure(hotwords) {
    this.hotwordsBefore = this.hotwords;
    this.hotwords = hotwords;
    if (this.isReady) this.tellHotwords(); // else `ready` does
  }

  tellHotwords() {
    this.hasTold = this.isUnsure = true;
    this.unsureUntilS = this.sent / this.sound.rate + 0.001;
    this.tell({ type: "configure", hotwords: this.hotwords });
  }

  // They are kept out of later connections, too.
  refuseHotwords({ message }) {
    this.isUnsure = false;
    this.hotwords = this.hotwordsBefore;
    this.hotwordsBefore = [];
    this.on.state("unexpected", { why: message });
  }

  // No more sound will come.
  complete() {
    this.isComplete = true;
    if (this.timer) this.on.state("waiting", this.waiting); // still without a connection
    else this.pump();
  }

  // Ends it now, without the rest.
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

  // `isRefused`: the connection was closed before the server was ready.
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

  // The server would let us in, and has not. It may have been full until a moment ago, so it is
  // asked for the same again before turns are left out: later where they were told already.
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
    let wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this.tries++);
    if (found.state === "full") wait = FULL_WAIT_S;
    if (found.waitS > 0) wait = found.waitS;
    this.waiting = { ...found, at: Date.now() + wait * 1000, wasOpen: this.wasOpen };
    this.on.state("waiting", this.waiting);
    this.timer = setTimeout(() => this.connect(), wait * 1000);
  }
}

// How the server is: "ready", "full", "key" (it wants one, or another), "origin" (it takes no page
// from this address), "often" (asked too often), "crowded" (too many connections), "ending",
// "loading", "busy" (it says why) or "down". A socket that is refused does not say by what: the same
// path is asked without one. By a POST, as that names the page's own address as a socket does.
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

// A network that is dead without a word answers nothing, and fails nothing either.
function ask(path, options = {}) {
  const signal = AbortSignal.timeout?.(ASK_S * 1000);
  return fetch(path, { cache: "no-store", signal, ...options });
}
