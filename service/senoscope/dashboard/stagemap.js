// The stage map: each field of view of a series at its position on the stage, drawn as the scan proceeds.

import { $, addTooltip, el, fitCanvas, onResize, rebuild, setText, throttled } from "./dom.js";
import { css, grey, ramp, viridis } from "./colormaps.js";
import { REASONS, withoutResult } from "./scanplan.js";
import { summaryOf } from "./verdict.js";

const MARGIN = 12;
const MIN_PX = 5;
// Outlines of frames without a result, by reason: colour and dashes.
const LINES = {
  planned: ["#647585", [2, 3]],
  missing: ["#ff8f80", []],
  dropped: ["#ffc857", [6, 3]],
  refused: ["#c9a6ff", [4, 2, 1, 2]],
  failed: ["#ff8f80", [3, 2]],
  unknown: ["#a9b7c3", [1, 2]],
};
const COLUMNS = 8; // of fields of view without a position

export class StageMap {
  #store;
  #model = null;
  #tiles = []; // { entry, x, y, w, h } in micrometres, or in tiles if the stream has no positions
  #empty = []; // { frame, kind, x, y, w, h } of frames without a result
  #scale = null;

  constructor(store) {
    this.#store = store;
    const draw = throttled(() => this.#draw(), 120);
    store.addEventListener("entries", draw);
    store.addEventListener("selected", draw);
    onResize($("map"), draw);
    $("layer").addEventListener("change", draw);
    $("map").addEventListener("click", (event) => {
      const tile = this.#at(event.offsetX, event.offsetY);
      if (tile) store.pick(tile.entry.id);
    });
    addTooltip($("map"), (event) => this.#tooltip(event));
    $("map").addEventListener("keydown", (event) => this.#step(event));
  }

  set model(model) {
    this.#model = model;
    $("layer").dispatchEvent(new Event("change"));
  }

  #draw() {
    const byUncertainty = $("layer").value === "uncertainty";
    const colours = byUncertainty ? grey : viridis;
    ramp($("mapramp"), colours);
    const surface = fitCanvas($("map"));
    if (!surface) return;
    const { context, width, height } = surface;
    this.#tiles = place(this.#store.shown?.entries ?? [], this.#model?.manifest.input);
    const without = this.#without();
    this.#empty = this.#tiles.length ? placed(without, this.#tiles) : [];
    this.#key(without);
    if (!this.#tiles.length) return;
    const bounds = boundsOf([...this.#tiles, ...this.#empty]);
    const scale = Math.min((width - 2 * MARGIN) / bounds.w, (height - 2 * MARGIN) / bounds.h);
    // Centred in the pane.
    const left = (width - bounds.w * scale) / 2 - bounds.x * scale;
    const top = (height - bounds.h * scale) / 2 - bounds.y * scale;
    this.#scale = { scale, left, top };
    for (const tile of this.#empty) {
      const [x, y, w, h] = this.#box(tile);
      const [colour, dashes] = LINES[tile.kind];
      context.strokeStyle = colour;
      context.setLineDash(dashes);
      context.strokeRect(x + 1.5, y + 1.5, w - 3, h - 3);
    }
    context.setLineDash([]);
    let chosen = null;
    context.strokeStyle = "#0a0e12";
    for (const tile of this.#tiles) {
      const value = byUncertainty ? tile.entry.entropy : tile.entry.probability;
      context.fillStyle = css(colours, value);
      const [x, y, w, h] = this.#box(tile);
      context.fillRect(x, y, w, h);
      if (w > 6) context.strokeRect(x, y, w, h); // neighbours overlap, and may be alike
      if (!tile.entry.reliable) hatch(context, x, y, w, h);
      if (tile.entry.id === this.#store.selected) chosen = tile;
    }
    if (chosen) {
      const [x, y, w, h] = this.#box(chosen);
      for (const [lineWidth, strokeStyle] of [[5, "#000"], [2.5, "#fff"]]) {
        Object.assign(context, { lineWidth, strokeStyle });
        context.strokeRect(x - 1, y - 1, w + 1, h + 1);
      }
    }
  }

  #box({ x, y, w, h }) {
    const { scale, left, top } = this.#scale;
    // Large enough to be seen and clicked, even if the fields of view are far from each other.
    const [width, height] = [Math.max(MIN_PX, w * scale), Math.max(MIN_PX, h * scale)];
    return [(x + w / 2) * scale + left - width / 2, (y + h / 2) * scale + top - height / 2, width, height];
  }

  /** Returns the tile at a point; where tiles overlap, the one that was scanned last. */
  #at(px, py, tiles = this.#tiles) {
    return this.#scale && tiles.findLast((tile) => {
      const [x, y, w, h] = this.#box(tile);
      return px >= x && px <= x + w && py >= y && py <= y + h;
    });
  }

  #tooltip(event) {
    const tile = this.#at(event.offsetX, event.offsetY);
    if (tile) return summaryOf(tile.entry);
    const empty = this.#at(event.offsetX, event.offsetY, this.#empty);
    if (!empty) return "";
    return `FOV ${empty.frame} · ${REASONS[empty.kind] ?? empty.kind}`;
  }

  #without() {
    const { shown } = this.#store;
    if (shown?.kind !== "series" || !shown.complete) return [];
    return withoutResult(shown.entries, shown.summary, shown.reasons);
  }

  /** Shows the key of outlines and hatching, with counts, and how many frames have no known position. */
  #key(without) {
    const line = (kind, text) => {
      const all = without.filter((one) => one.kind === kind);
      const nowhere = all.filter(({ place }) => !place).length;
      return all.length ? el("span", { data: { kind } }, `${all.length} ${text}${nowhere ? ` (${nowhere === all.length ? "position" : `position of ${nowhere}`} unknown)` : ""}`) : null;
    };
    const flagged = this.#tiles.filter(({ entry }) => !entry.reliable).length;
    const reasons = Object.entries(REASONS).map(([kind, text]) => line(kind, text));
    const parts = [line("planned", "planned"), ...reasons, flagged ? el("span", { data: { kind: "flagged" } }, `${flagged} unreliable`) : null].filter(Boolean);
    $("mapkey").hidden = !parts.length;
    rebuild($("mapkey"), parts.map(({ textContent }) => textContent), () => parts);
  }

  /** Selects the nearest field of view in the direction of an arrow key. */
  #step(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by || !this.#tiles.length) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.#tiles.find(({ entry }) => entry.id === this.#store.selected) ?? this.#tiles[0];
    let [best, least] = [null, Infinity];
    for (const tile of this.#tiles) {
      const [dx, dy] = [tile.x - from.x, tile.y - from.y];
      const ahead = dx * by[0] + dy * by[1];
      const aside = Math.abs(dx * by[1]) + Math.abs(dy * by[0]);
      const distance = ahead + 2 * aside;
      if (ahead > 1e-9 && aside <= ahead && distance < least) [best, least] = [tile, distance];
    }
    if (best) this.#store.pick(best.entry.id);
    setText($("progress"), best ? `FOV ${best.entry.frame ?? ""}: ${best.entry.label} ${best.entry.probability.toFixed(2)}` : $("progress").textContent);
  }
}

/** Returns a tile for each place, with the field of view that was scanned there last. */
function place(entries, input) {
  const size = input ?? { height: 250, width: 300 };
  const places = new Map();
  const nowhere = [];
  for (const entry of entries) {
    if (entry.place) {
      const key = `${entry.place.x},${entry.place.y}`;
      places.delete(key); // so that it is drawn above its neighbours
      places.set(key, entry);
    } else nowhere.push(entry);
  }
  const pitch = pitchOf([...places.values()].map((entry) => entry.place));
  const tiles = [...places.values()].map((entry) => {
    const w = entry.pixelUm ? size.width * entry.pixelUm : pitch.x;
    const h = entry.pixelUm ? size.height * entry.pixelUm : pitch.y;
    return { entry, x: entry.place.x - w / 2, y: entry.place.y - h / 2, w, h };
  });
  const [w, h] = tiles.length ? [tiles[0].w, tiles[0].h] : [size.width / size.height, 1];
  // Below the others.
  const bounds = tiles.length ? boundsOf(tiles) : { x: 0, y: 0, h: -h / 2 };
  const [x, y] = [bounds.x, bounds.y + bounds.h + h / 2];
  nowhere.forEach((entry, k) =>
    tiles.push({ entry, x: x + (k % COLUMNS) * w, y: y + Math.floor(k / COLUMNS) * h, w, h }));
  return tiles;
}

/** Returns tiles of frames without a result, of the size of the others. */
function placed(without, tiles) {
  const { w, h } = tiles[0];
  return without.filter(({ place: at }) => at).map(({ frame, kind, place: at }) => ({ frame, kind, x: at.x - w / 2, y: at.y - h / 2, w, h }));
}

/** Hatches the tile of an unreliable result. */
function hatch(context, x, y, w, h) {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.lineWidth = 2;
  context.strokeStyle = "#0a0e12";
  context.beginPath();
  for (let at = -h; at < w; at += 7) {
    context.moveTo(x + at, y + h);
    context.lineTo(x + at + h, y);
  }
  context.stroke();
  context.restore();
}

/** Returns the smallest step of the stage in each direction. */
function pitchOf(places) {
  const step = (axis) => {
    const sorted = [...new Set(places.map((one) => one[axis]))].sort((a, b) => a - b);
    return Math.min(...sorted.slice(1).map((value, k) => value - sorted[k]));
  };
  const [x, y] = places.length ? [step("x"), step("y")] : [1, 1];
  const known = [x, y].filter(Number.isFinite);
  const other = known.length ? known[0] : 1;
  return { x: Number.isFinite(x) ? x : other, y: Number.isFinite(y) ? y : other };
}

function boundsOf(tiles) {
  let [x, y, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const tile of tiles) {
    x = Math.min(x, tile.x);
    y = Math.min(y, tile.y);
    right = Math.max(right, tile.x + tile.w);
    bottom = Math.max(bottom, tile.y + tile.h);
  }
  return { x, y, w: right - x, h: bottom - y };
}
