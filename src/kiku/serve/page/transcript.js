// The words on the page. Turns are paragraphs. A word shows how sure it is; a click plays from it.

const SURE = 0.9;
const FAIR = 0.6;
const PAUSE_S = 1.5; // a pause that begins a paragraph, if the server sends no turns

export class Transcript {
  // `seek` is called with the time of a word that the user chooses.
  constructor(text, tip, seek) {
    this.text = text;
    this.tip = tip;
    this.seek = seek;
    this.clear();
    text.addEventListener("click", (event) => this.choose(event.target));
    text.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["pointerover", "focusin"]) {
      text.addEventListener(name, (event) => this.showTip(event.target));
    }
    for (const name of ["pointerout", "focusout"]) {
      text.addEventListener(name, () => this.hideTip());
    }
    addEventListener("resize", () => this.hideTip());
  }

  clear() {
    this.words = []; // {text, start, end, probability, turn}
    this.turns = []; // {start, end}
    this.isOpen = false; // whether the last turn goes on
    this.hasTurns = false;
    this.nodes = [];
    this.paragraph = null;
    this.partial = null;
    this.text.replaceChildren();
    this.now = null;
    this.hideTip();
  }

  turnStart(time) {
    this.hasTurns = true;
    this.openTurn(time);
  }

  openTurn(time) {
    this.turns.push({ start: time, end: null });
    this.isOpen = true;
    this.paragraph = null;
  }

  turnEnd(time) {
    if (!this.isOpen) return;
    this.turns.at(-1).end = time;
    this.isOpen = false;
  }

  // Ends the open turn: the server has started again, and does not know of it.
  restart(time) {
    this.turnEnd(time);
    this.setPartial("");
  }

  addWord({ text, start, end, probability }) {
    const before = this.words.at(-1);
    if (!this.hasTurns && this.isOpen && before && start - before.end > PAUSE_S) {
      this.turnEnd(before.end);
    }
    if (!this.turns.length || (!this.isOpen && !this.hasTurns)) this.openTurn(start);
    this.setPartial("");
    const word = { text, start, end, probability, turn: this.turns.length - 1 };
    const node = document.createElement("span");
    node.className = `word ${rank(probability)}`;
    node.textContent = text;
    node.tabIndex = this.nodes.length ? -1 : 0;
    node.dataset.i = this.words.length;
    this.words.push(word);
    this.nodes.push(node);
    this.append(node);
  }

  append(node) {
    if (!this.paragraph) {
      this.paragraph = document.createElement("p");
      this.text.append(this.paragraph);
    }
    if (this.paragraph.childNodes.length) this.paragraph.append(" ");
    this.paragraph.append(node);
  }

  setPartial(text) {
    if (this.partial) {
      const { previousSibling, parentNode } = this.partial;
      if (previousSibling) previousSibling.remove(); // the space
      this.partial.remove();
      if (!parentNode.childNodes.length) {
        parentNode.remove();
        this.paragraph = null;
      }
      this.partial = null;
    }
    if (!text) return;
    this.partial = document.createElement("span");
    this.partial.className = "partial";
    this.partial.setAttribute("aria-hidden", "true"); // read out when it is decided
    this.partial.textContent = text;
    this.append(this.partial);
  }

  // Marks the word at a time of the player; null marks none.
  mark(time) {
    const i = time === null ? -1 : lastBefore(this.words, time + 0.02); // players round
    const node = i >= 0 && time < this.words[i].end + 0.3 ? this.nodes[i] : null;
    if (node === this.now) return;
    this.now?.classList.remove("now");
    node?.classList.add("now");
    this.now = node;
  }

  choose(node) {
    const word = this.words[node.dataset?.i];
    if (!word) return;
    this.goTo(Number(node.dataset.i));
    this.seek(word.start);
  }

  key(event) {
    const i = Number(event.target.dataset?.i ?? -1);
    if (i < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.words.length - 1;
    const { turn } = this.words[i];
    const to = {
      ArrowRight: i + 1,
      ArrowLeft: i - 1,
      ArrowDown: this.words.findIndex((one) => one.turn > turn),
      ArrowUp: this.words.findIndex((one) => one.turn >= turn - 1),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") this.choose(event.target);
    else if (to === undefined) return;
    else if (to >= 0 && to <= last) this.goTo(to).focus();
    event.preventDefault();
  }

  // The tab key reaches one word of the text.
  goTo(i) {
    this.text.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    this.nodes[i].tabIndex = 0;
    return this.nodes[i];
  }

  showTip(node) {
    const word = this.words[node.dataset?.i];
    if (!word) return;
    const { tip } = this;
    const sure = Math.round(word.probability * 100);
    tip.textContent = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s · ${sure} % sure`;
    tip.hidden = false;
    const box = node.getBoundingClientRect();
    const half = tip.offsetWidth / 2 + 4;
    const width = document.documentElement.clientWidth;
    const x = Math.max(half, Math.min(width - half, box.left + box.width / 2));
    tip.style.setProperty("--x", `${x + scrollX}px`);
    tip.style.setProperty("--y", `${box.top + scrollY}px`);
    this.hideTip(node);
    node.setAttribute("aria-describedby", tip.id);
    this.described = node;
  }

  hideTip(next = null) {
    this.described?.removeAttribute("aria-describedby");
    this.described = null;
    if (!next) this.tip.hidden = true;
  }

  // The turns that have words, with these.
  get paragraphs() {
    return this.turns
      .map((turn, i) => ({ ...turn, words: this.words.filter((one) => one.turn === i) }))
      .filter((turn) => turn.words.length);
  }
}

function rank(probability) {
  if (probability >= SURE) return "sure";
  return probability >= FAIR ? "fair" : "doubtful";
}

// The index of the last word that starts at `time` or before; -1 if there is none.
function lastBefore(words, time) {
  let low = 0;
  let high = words.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle].start <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
