// Scrolls to the newest word as it comes, and to the word that is played.

const ROOM = 16; // pixels below the text
const SLACK = 40; // pixels: a text that ends less far below the window counts as at its end

export class View {
  // `top` stays at the window's upper edge and covers the text. `words` is the text with the
  // buttons below it.
  constructor(top, words) {
    this.top = top;
    this.words = words;
    this.isComing = false; // whether words may come
    this.isAtEnd = true; // whether the reader is at the end of the text
    this.played = null;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    // Growing text does not scroll by itself, so that this is the reader scrolling.
    const look = () => (this.isAtEnd = this.below <= innerHeight + SLACK);
    addEventListener("scroll", look, { passive: true });
    new ResizeObserver(() => this.grown()).observe(words);
    new ResizeObserver(() => {
      // An element that gets the keyboard's focus is not covered either.
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

  // Follows the word that is played, unless the reader has scrolled away from the one before.
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
