// The waveform: sound that was heard in one colour, sound that waits in another, and the player's
// place.

const MIN_S = 8; // seconds that the width stands for when a recording has just begun
const BAR = 3; // pixels
const STEP_S = 2; // seconds that an arrow key goes

export class Wave {
  // `seek` is called with the time that the user chooses.
  constructor(canvas, seek) {
    this.canvas = canvas;
    this.seek = seek;
    this.sound = null;
    this.isGrowing = false; // whether a microphone adds sound
    this.heardS = 0;
    this.playS = null; // where the player is
    this.isAsked = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.point(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.point(event);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  get width() {
    const { seconds } = this.sound;
    return this.isGrowing ? Math.max(MIN_S, seconds) : seconds;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    if (this.sound) this.go(((event.clientX - box.left) / box.width) * this.width);
  }

  key(event) {
    const here = this.playS ?? 0;
    const to = {
      ArrowRight: here + STEP_S, ArrowUp: here + STEP_S,
      ArrowLeft: here - STEP_S, ArrowDown: here - STEP_S,
      PageUp: here + 10, PageDown: here - 10,
      Home: 0, End: this.sound?.seconds,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(to);
  }

  go(time) {
    if (this.playS !== null) this.seek(Math.max(0, Math.min(this.sound.seconds, time)));
  }

  // Draws once before the browser's next frame, however often this is called.
  draw() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { canvas, sound } = this;
    const ratio = devicePixelRatio || 1;
    const wide = canvas.clientWidth;
    const high = canvas.clientHeight;
    if (!sound || !wide) return;
    const { width } = this;
    if (canvas.width !== Math.round(wide * ratio)) canvas.width = Math.round(wide * ratio);
    if (canvas.height !== Math.round(high * ratio)) canvas.height = Math.round(high * ratio);
    const pen = canvas.getContext("2d");
    const colours = getComputedStyle(canvas);
    const colour = (name) => colours.getPropertyValue(name);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    const bars = Math.floor(wide / BAR);
    const heard = colour("--heard");
    const unheard = colour("--unheard");
    for (let i = 0; i < bars; i++) {
      const start = (i / bars) * width;
      const peak = start < sound.seconds ? sound.peakBetween(start, start + width / bars) : 0;
      // The square root makes quiet sound visible.
      const tall = Math.max(1.5, Math.sqrt(peak) * (high - 6));
      pen.fillStyle = start < this.heardS ? heard : unheard;
      pen.fillRect(i * BAR, (high - tall) / 2, BAR - 1, tall);
    }
    if (this.playS !== null) {
      pen.fillStyle = colour("--ink");
      pen.fillRect(Math.min(wide - 2, (this.playS / width) * wide), 0, 2, high);
    }
    this.describe();
  }

  describe() {
    const { canvas } = this;
    const most = Math.round(this.sound.seconds);
    const here = Math.round(this.playS ?? this.heardS);
    if (canvas.getAttribute("aria-valuemax") !== String(most)) {
      canvas.setAttribute("aria-valuemax", most);
    }
    if (canvas.getAttribute("aria-valuenow") !== String(here)) {
      canvas.setAttribute("aria-valuenow", here);
      canvas.setAttribute("aria-valuetext", `${clock(here)} of ${clock(most)}`);
    }
    canvas.setAttribute("aria-disabled", String(this.playS === null));
  }
}

export function clock(time) {
  const whole = Math.floor(time);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((one, i) => (i ? String(one).padStart(2, "0") : one)).join(":");
}
