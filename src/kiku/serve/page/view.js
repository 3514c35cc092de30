// Keeps in view what matters: the newest word as it comes, and the word that is played.

const ROOM = 16; // pixels below the text
const SLACK = 40; // so far below the window a text may end whose end is still read

export class View {
  // `top` stays at the window's upper edge, and hides what is behind it. `words` is the text with
  // what belongs below it.
  constructor(top, words) {
    this.top = top;
    this.words = words;
    this.isComing = false; // words may come
    this.isAtEnd = true; // the reader is
    this.played = null;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    // Growing text scrolls nothing by itself: so this is what the reader does.
    const look = () => (this.isAtEnd = this.below <= innerHeight + SLACK);
    addEventListener("scroll", look, { passive: true });
    new ResizeObserver(() => this.grown()).observe(words);
    new ResizeObserver(() => {
      // Where the keyboard leads to is not hidden either.
      document.documentElement.style.setProperty("--top", `${top.offsetHeight}px`);
    }).observe(top);
  }

  get below() {
    return this.words.getBoundingClientRect().bottom;
  }

  begin() {
    this.isAtEnd = true;
    this.played = null;
  }

  grown() {
    const over = this.below + ROOM - innerHeight;
    if (this.isComing && this.isAtEnd && over > 0) scrollBy(0, over);
  }

  // The word that is played now; a reader who has left the one before is let go.
  follow(word) {
    if (!word || word === this.played) return;
    if (!this.played || this.shows(this.played)) this.bring(word);
    this.played = word;
  }

  bring(word) {
    if (!word) return;
    this.played = word;
    word.scrollIntoView({ block: "nearest", behavior: this.calm.matches ? "auto" : "smooth" });
  }

  shows(word) {
    const box = word.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > this.top.getBoundingClientRect().bottom;
  }
}
