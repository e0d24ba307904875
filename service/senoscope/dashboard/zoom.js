// Zoom and pan of the picture by wheel, drag and three buttons, without drawing the picture again.

import { $, setText } from "./dom.js";

const STEP = 1.5;
const MAX_SCALE = 24;
const CRISP = 3; // from this scale on, single pixels are shown

/** Dispatches `changed` when scale or position of the picture change. */
export class Zoom extends EventTarget {
  scale = 1;
  #canvas;
  #x = 0; // of the picture's upper left corner, in pixels of the pane
  #y = 0;
  #drag = null;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    const stage = canvas.parentElement;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#about(STEP ** (-Math.sign(event.deltaY) * (event.ctrlKey ? 0.25 : 0.5)), event.clientX, event.clientY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.scale === 1) return;
      canvas.setPointerCapture(event.pointerId);
      this.#drag = { x: event.clientX - this.#x, y: event.clientY - this.#y };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#drag) this.#to(this.scale, event.clientX - this.#drag.x, event.clientY - this.#drag.y);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.#drag = null; });
    canvas.addEventListener("dblclick", () => this.fit());
    $("zoomin").onclick = () => this.by(1);
    $("zoomout").onclick = () => this.by(-1);
    $("zoomfit").onclick = () => this.fit();
    new ResizeObserver(() => this.#to(this.scale, this.#x, this.#y)).observe(stage);
  }

  /** Zooms in (1) or out (-1) by one step, about the middle of the pane. */
  by(steps) {
    const { left, top, width, height } = this.#canvas.parentElement.getBoundingClientRect();
    this.#about(STEP ** steps, left + width / 2, top + height / 2);
  }

  /** Shows the whole field of view. */
  fit() {
    this.#to(1, 0, 0);
  }

  #about(factor, clientX, clientY) {
    const { left, top } = this.#canvas.parentElement.getBoundingClientRect();
    const scale = Math.min(MAX_SCALE, Math.max(1, this.scale * factor));
    const [x, y] = [clientX - left, clientY - top];
    const by = scale / this.scale;
    this.#to(scale, x - (x - this.#x) * by, y - (y - this.#y) * by);
  }

  #to(scale, x, y) {
    const { clientWidth: width, clientHeight: height } = this.#canvas.parentElement;
    this.scale = scale < 1.01 ? 1 : scale;
    // The picture always fills the pane.
    this.#x = Math.min(0, Math.max(width * (1 - this.scale), x));
    this.#y = Math.min(0, Math.max(height * (1 - this.scale), y));
    this.#canvas.style.transform = this.scale === 1 ? "" : `translate(${this.#x}px, ${this.#y}px) scale(${this.scale})`;
    this.#canvas.classList.toggle("zoomed", this.scale > 1);
    this.#canvas.classList.toggle("crisp", this.scale >= CRISP);
    const times = `${this.scale < 10 ? Number(this.scale.toFixed(1)) : Math.round(this.scale)}×`;
    setText($("zoomfit"), times);
    $("zoomfit").setAttribute("aria-label", `${times}, whole field of view`);
    this.dispatchEvent(new Event("changed"));
  }
}
