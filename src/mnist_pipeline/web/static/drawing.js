// The board on which a digit is drawn, by mouse, finger, pen or keyboard: white on black, as MNIST's own.

const SIZE = 280;
const CELLS = 28;
const CELL = SIZE / CELLS;
const INK_WIDTH = 20;

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Drawing {
  /** `onSend` is called for the Enter key, `onBegin` when something is drawn on an empty board. */
  constructor({ canvas, pen, invitation, says, onSend, onBegin }) {
    this.canvas = canvas;
    this.pen = pen;
    this.invitation = invitation;
    this.says = says;
    this.onSend = onSend;
    this.onBegin = onBegin;
    this.context = canvas.getContext("2d");
    this.last = null;
    this.middle = null;
    this.cell = [CELLS / 2, CELLS / 2];
    this.isPenDown = false;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, (event) => this.#end(event));
    }
    // A stroke is no gesture: after one that the browser takes for a fling, the next tap would only stop that.
    canvas.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    canvas.addEventListener("focus", () => this.#showKeys(this.pointer === undefined && canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.#showKeys(false));
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIZE, SIZE);
    this.isEmpty = true;
    this.isSent = false;
    this.canvas.classList.remove("is-sent");
    this.invitation.hidden = false;
  }

  /** What is drawn now was sent: the next stroke begins a new one. */
  markSent() {
    this.isSent = true;
    this.canvas.classList.add("is-sent");
  }

  /** The picture as the bytes of a PNG. */
  toBlob() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }

  #begin(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    this.#showKeys(false);
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.#freshen();
    this.last = this.middle = this.#at(event);
    this.#ink(this.last, this.last, this.last, event);
  }

  #move(event) {
    if (event.pointerId !== this.pointer) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const one of moves.length > 0 ? moves : [event]) {
      const to = this.#at(one);
      const middle = [(this.last[0] + to[0]) / 2, (this.last[1] + to[1]) / 2];
      // Through the middles of the moves the line is round where the hand was.
      this.#ink(this.middle, this.last, middle, one);
      [this.last, this.middle] = [to, middle];
    }
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.#ink(this.middle, this.last, this.last, event);
    this.pointer = undefined;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIZE, ((event.clientY - box.top) / box.height) * SIZE];
  }

  #ink(from, by, to, event) {
    const isPressed = event?.pointerType === "pen" && event.pressure > 0;
    const context = this.context;
    context.strokeStyle = "#fff";
    context.lineWidth = isPressed ? INK_WIDTH * (0.6 + 0.8 * event.pressure) : INK_WIDTH;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...from);
    context.quadraticCurveTo(...by, ...to);
    context.stroke();
  }

  #freshen() {
    if (this.isSent) this.clear();
    if (this.isEmpty) this.onBegin();
    this.isEmpty = false;
    this.invitation.hidden = true;
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) this.#step(ARROWS[event.key]);
    else if (event.key === " ") this.#putPen(!this.isPenDown);
    else if (event.key === "Escape" && this.isPenDown) this.#putPen(false);
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key === "Enter") this.onSend();
    else return;
    event.preventDefault();
    this.#showKeys(true);
  }

  #putPen(isDown) {
    this.isPenDown = isDown;
    this.says.textContent = isDown ? "Pen down" : "Pen lifted";
    if (isDown) {
      this.#freshen();
      const at = this.#penAt();
      this.#ink(at, at, at);
    }
  }

  #step([right, down]) {
    const from = this.#penAt();
    const within = (cell) => Math.min(Math.max(cell, 1), CELLS - 2);
    this.cell = [within(this.cell[0] + right), within(this.cell[1] + down)];
    if (this.isPenDown) {
      this.#freshen();
      this.#ink(from, from, this.#penAt());
    }
  }

  #penAt() {
    return this.cell.map((cell) => (cell + 0.5) * CELL);
  }

  /** Where the keyboard's pen is, and what its keys are; of no use to a mouse. */
  #showKeys(isByKeyboard) {
    if (!isByKeyboard) this.isPenDown = false;
    this.canvas.parentElement.classList.toggle("is-by-keyboard", isByKeyboard);
    this.pen.classList.toggle("is-down", this.isPenDown);
    const [x, y] = this.#penAt();
    this.pen.style.left = `${(x / SIZE) * 100}%`;
    this.pen.style.top = `${(y / SIZE) * 100}%`;
  }
}
