// The timeline: the probability of every field of view of a series, in the order of the scan.

import { $, fitCanvas, addTooltip, setText, onResize, throttled } from "./dom.js";
import { css, viridis } from "./colormaps.js";
import { fovs } from "./format.js";
import { REASONS, reasonOf } from "./scanplan.js";
import { summaryOf } from "./verdict.js";

const PAD = { left: 26, right: 8, top: 10, bottom: 10 };
const MIN_SLOTS = 24; // so that the first few fields of view do not fill the whole width
const [DIM, WARN, BAD] = ["#a9b7c3", "#ffc857", "#ff8f80"];
const GAPS = { dropped: WARN, refused: "#c9a6ff", unknown: DIM };

export class Timeline {
  #store;
  #threshold = 0.5;
  #slot = 1;

  constructor(store) {
    this.#store = store;
    const draw = throttled(() => this.#draw(), 120);
    for (const event of ["entries", "selected"]) store.addEventListener(event, draw);
    onResize($("timeline"), draw);
    $("timeline").addEventListener("click", ({ offsetX }) => {
      const entry = this.#store.shown?.entries[Math.floor((offsetX - PAD.left) / this.#slot)];
      if (entry) store.pick(entry.id);
    });
    addTooltip($("timeline"), ({ offsetX }) => {
      const { shown } = this.#store;
      const k = Math.floor((offsetX - PAD.left) / this.#slot);
      const entry = shown?.entries[k];
      if (!entry) return "";
      const gap = gapBefore(shown, k);
      return gap ? `${summaryOf(entry)} · before it: ${gap.text}` : summaryOf(entry);
    });
    $("previous").onclick = () => store.step(-1);
    $("next").onclick = () => store.step(1);
  }

  set model({ manifest }) {
    this.#threshold = manifest.ensemble.threshold;
  }

  #draw() {
    const canvas = $("timeline");
    const surface = fitCanvas(canvas);
    if (!surface) return;
    const { context, width, height } = surface;
    const collection = this.#store.shown;
    const entries = collection?.entries ?? [];
    const slots = Math.max(entries.length, collection?.summary?.planned_frames ?? 0, MIN_SLOTS);
    this.#slot = (width - PAD.left - PAD.right) / slots;
    const y = (p) => PAD.top + (1 - p) * (height - PAD.top - PAD.bottom);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = DIM;
    context.fillText("1", 12, y(1) + 4);
    context.fillText("0", 12, y(0) + 4);
    context.setLineDash([4, 4]);
    context.strokeStyle = DIM;
    context.beginPath();
    context.moveTo(PAD.left, y(this.#threshold));
    context.lineTo(width - PAD.right, y(this.#threshold));
    context.stroke();
    context.setLineDash([]);
    const radius = Math.min(5, Math.max(1.2, this.#slot / 2.6));
    const x = (k) => PAD.left + (k + 0.5) * this.#slot;
    const judged = this.#store.deadlineMs !== null;
    let [late, flagged] = [0, 0];
    entries.forEach((entry, k) => {
      const gap = gapBefore(collection, k);
      if (gap) {
        context.fillStyle = GAPS[gap.kind] ?? BAD;
        context.fillRect(x(k) - this.#slot / 2 - 0.75, PAD.top - 6, 1.5, height - PAD.top);
      }
      context.fillStyle = css(viridis, entry.probability);
      if (radius > 2) {
        context.beginPath();
        context.arc(x(k), y(entry.probability), radius, 0, 7);
        context.fill();
      } else context.fillRect(x(k) - radius, y(entry.probability) - radius, 2 * radius, 2 * radius);
      if (entry.flags.length) {
        flagged += 1;
        context.fillStyle = WARN;
        context.fillRect(x(k) - radius / 2, 1, Math.max(1, radius), 5);
      }
      if (judged && entry.missed) late += 1;
    });
    const at = collection && this.#store.selected ? collection.indexOf(this.#store.selected) : -1;
    if (at >= 0) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x(at), y(entries[at].probability), radius + 3, 0, 7);
      context.stroke();
    }
    this.#describe(entries, at, late, flagged);
  }

  #describe(entries, at, late, flagged) {
    const canvas = $("timeline");
    canvas.setAttribute("aria-valuemax", Math.max(0, entries.length - 1));
    canvas.setAttribute("aria-valuenow", Math.max(0, at));
    const entry = entries[at];
    canvas.setAttribute("aria-valuetext", entry ? `field of view ${entry.frame ?? at}, ${entry.label}, probability ${entry.probability.toFixed(2)}` : "none");
    const parts = [fovs(entries.length)];
    if (flagged) parts.push(`${flagged} flagged (mark above)`);
    if (late) parts.push(`${late} late`);
    setText($("timelinesummary"), parts.join(" · "));
  }
}

/** Returns the frames without a result between a field of view and the previous one, or null if there are none. */
function gapBefore({ kind, entries, reasons }, k) {
  if (kind !== "series" || !k || !(entries[k].frame > entries[k - 1].frame + 1)) return null;
  const [first, last] = [entries[k - 1].frame + 1, entries[k].frame - 1];
  const reason = reasonOf(reasons)(first);
  const which = first === last ? `FOV ${first}` : `FOV ${first} to ${last}`;
  return { kind: reason, text: `${which} ${REASONS[reason]}` };
}
