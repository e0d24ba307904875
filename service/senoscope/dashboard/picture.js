// The picture of the selected field of view: channels, Grad-CAM map, scale bar and readout.

import { json, Problem, Unreachable } from "./api.js";
import { $, el, rebuild, setOptions, setText } from "./dom.js";
import { count } from "./format.js";
import { ensembleMap, networkMap } from "./gradcam.js";
import { pixelsOf } from "./pixels.js";
import { Zoom } from "./zoom.js";
import { composite, contrast, grey, paint, scaled, thinned } from "./render.js";

const BARS_UM = [1, 2, 5, 10, 20, 50, 100, 200];
const THUMB_STEP = 3; // thumbnails have a third of the width and height
const ALL = "all";
const MAP = "gradcam";

export class Picture extends EventTarget {
  #store;
  #model = null;
  #wanted = null;
  #working = false;
  #shown = null; // { result, pixels, stretch }
  #drawing = false;
  #channel = "0";
  #box = { width: 0, height: 0 };

  constructor(store) {
    super();
    this.zoom = new Zoom($("main"));
    this.zoom.addEventListener("changed", () => this.#legend());
    this.#store = store;
    store.addEventListener("selected", () => this.#select(store.selected));
    for (const id of ["network", "style", "contrast"]) $(id).addEventListener("change", () => this.#draw());
    $("opacity").addEventListener("input", () => this.#draw());
    $("channels").addEventListener("change", (event) => this.channel(event.target.value));
    $("main").addEventListener("pointermove", (event) => this.#read(event));
    $("main").addEventListener("pointerleave", () => setText($("readout"), ""));
    // Kept, because reading the size from the element causes a layout.
    new ResizeObserver(([{ contentRect }]) => {
      this.#box = contentRect;
      this.#draw();
    }).observe($("main"));
  }

  /** Sets channels and networks to those of the model in use. */
  set model(model) {
    this.#model = model;
    this.#controls();
  }

  /** The result on the screen; null before the first. */
  get result() {
    return this.#shown?.result ?? null;
  }

  /** Shows a channel by its index, or all of them in colour. */
  channel(value) {
    if (value !== ALL && value !== MAP && Number(value) >= this.#names().length) return;
    this.#channel = value;
    for (const input of $("channels").querySelectorAll("input")) input.checked = input.value === value;
    this.#draw();
  }

  toggleMap() {
    $("style").value = $("style").value === "off" ? "overlay" : "off";
    this.#draw();
  }

  nextNetwork() {
    const select = $("network");
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    this.#draw();
  }

  fade(by) {
    $("opacity").value = Number($("opacity").value) + by;
    this.#draw();
  }

  /** Fetches the selected field of view again, if that failed while the service was unavailable. */
  retry() {
    if (this.#wanted !== null && this.#wanted !== this.result?.id) this.#work();
  }

  #select(id) {
    this.#wanted = id;
    if (id === null) return this.#clear();
    return this.#work();
  }

  /** Fetches the selected field of view; those that were selected only meanwhile are skipped. */
  async #work() {
    if (this.#working) return;
    this.#working = true;
    try {
      while (this.#wanted !== null && this.#wanted !== this.#shown?.result.id) {
        const id = this.#wanted;
        const [result, pixels] = await Promise.all([this.#result(id), pixelsOf(id)]);
        // While following a scan that is faster than pictures are fetched, each fetched picture is shown.
        if (id !== this.#wanted && (this.#wanted === null || !this.#store.follow)) continue;
        this.#shown = { result, pixels, stretch: pixels && contrast(pixels) };
        this.#controls();
        this.dispatchEvent(new CustomEvent("shown", { detail: result }));
        this.#draw();
        if (id !== this.#wanted) await new Promise((done) => setTimeout(done));
      }
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      this.dispatchEvent(new CustomEvent("failed", { detail: error }));
    } finally {
      this.#working = false;
    }
  }

  async #result(id) {
    const known = this.#store.result(id);
    if (known) return known;
    const result = await json(`v1/results/${id}?cam=grid`);
    this.#store.storeResult(result);
    return result;
  }

  #clear() {
    this.#shown = null;
    $("main").getContext("2d").clearRect(0, 0, $("main").width, $("main").height);
    rebuild($("thumbs"), [], () => []);
    $("scale").hidden = $("nopixels").hidden = true;
    $("empty").hidden = false;
    this.dispatchEvent(new CustomEvent("shown", { detail: null }));
  }

  #names() {
    const names = this.#model?.manifest.input.channels.map(({ name }) => name) ?? [];
    const there = this.#shown?.pixels?.channels.length ?? names.length;
    return names.length === there ? names : Array.from({ length: there }, (_, c) => `Channel ${c + 1}`);
  }

  #controls() {
    const names = this.#names();
    const options = [...names.map((name, c) => [String(c), name]), ...(names.length > 1 ? [[ALL, "Colour"]] : [])];
    const legend = $("channels").firstElementChild;
    rebuild($("channels"), options, () => [legend, ...options.map(([value, name]) =>
      el("label", {},
        el("input", { type: "radio", name: "channel", value, checked: value === this.#channel }), el("span", { textContent: name })))]);
    const networks = Object.keys(this.#shown?.result.networks ?? {});
    const known = networks.length ? networks : (this.#model?.manifest.networks.map(({ name }) => name) ?? []);
    setOptions($("network"), [["", "ensemble"], ...known.map((name) => [name, name])]);
  }

  #draw() {
    if (this.#drawing || !this.#shown) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (!this.#shown) return;
      this.#paint(this.#shown);
      const { id } = this.#shown.result;
      // By the next animation frame, this one is on the screen.
      requestAnimationFrame(() => this.dispatchEvent(new CustomEvent("painted", { detail: id })));
    });
  }

  #paint({ result, pixels, stretch }) {
    const { height, width } = pixels ?? this.#size();
    const range = result.normalization;
    const own = range.low.map((low, c) => [low, range.high[c]]);
    // The contrast of a constant channel cannot be stretched.
    const bounds = $("contrast").value === "auto" && stretch ? stretch.map(([low, high], c) => (high > low ? [low, high] : own[c])) : own;
    const channels = pixels?.channels.map((channel, c) => scaled(channel, bounds[c])) ?? [];
    const network = $("network").value;
    const grids = result.gradcam.grids;
    const map = network && grids[network] ? networkMap(grids[network], height, width) : ensembleMap(result, height, width);
    const chosen = channels[Number(this.#channel)] ?? channels[0];
    let rgba = pixels ? (this.#channel === ALL ? composite(channels) : grey(chosen)) : new Uint8ClampedArray(4 * map.length).fill(255);
    const style = pixels ? $("style").value : "map";
    if (style !== "off") rgba = paint(rgba, map, style, Number($("opacity").value) / 100);
    put($("main"), rgba, width, height);
    this.#thumbs(channels, map, width, height);
    $("empty").hidden = true;
    $("nopixels").hidden = pixels !== null;
    setText($("nopixels"), "The pixels of this field of view are no longer in the service's memory (--remember-mib). Only the map is shown, from the run log.");
    $("main").setAttribute("aria-label", describe(result, this.#names()[Number(this.#channel)] ?? "all channels", style, network));
    this.#legend();
  }

  #size() {
    const { height, width } = this.#model?.manifest.input ?? { height: 250, width: 300 };
    return { height, width };
  }

  #thumbs(channels, map, width, height) {
    const names = this.#names();
    const wanted = [...channels.map((_, c) => [String(c), names[c]]), [MAP, "Grad-CAM"]];
    rebuild($("thumbs"), wanted, () => wanted.map(([value, name]) =>
      el("button", { type: "button", data: { value }, onclick: () => this.#chooseThumb(value) }, el("canvas"), name)));
    [...$("thumbs").children].forEach((button, k) => {
      const thin = thinned(channels[k] ?? map, height, width, THUMB_STEP);
      const rgba = channels[k] ? grey(thin.values) : paint(new Uint8ClampedArray(4 * thin.values.length).fill(255), thin.values, "map", 1);
      put(button.querySelector("canvas"), rgba, thin.width, thin.height);
      const { value } = button.dataset;
      const pressed = value === MAP ? $("style").value === "map" : value === this.#channel && $("style").value !== "map";
      button.setAttribute("aria-pressed", pressed);
    });
  }

  #chooseThumb(value) {
    const alone = $("style").value === "map";
    if (value === MAP) $("style").value = alone ? "overlay" : "map";
    else if (alone) $("style").value = "overlay";
    if (value === MAP) this.#draw();
    else this.channel(value);
  }

  /** Places the scale bar in the lower left corner of the visible part of the picture. */
  #legend() {
    if (!this.#shown) return;
    const { result, pixels } = this.#shown;
    const { height, width } = pixels ?? this.#size();
    const [box, { scale: zoom }] = [this.#box, this.zoom];
    const fitted = Math.min(box.width / width, box.height / height);
    $("legend").style.left = `${Math.max(0, (box.width - width * fitted * zoom) / 2) + 12}px`;
    $("legend").style.bottom = `${Math.max(0, (box.height - height * fitted * zoom) / 2) + 10}px`;
    const pixelUm = result.source.pixel_size_um;
    $("scale").hidden = !pixelUm;
    if (!pixelUm) return;
    const seen = width / zoom;
    const um = BARS_UM.findLast((length) => length / pixelUm < seen / 4) ?? BARS_UM[0];
    $("scale").hidden = um / pixelUm > seen || um / pixelUm < 1; // not the pixel size of a microscope
    $("scale").style.width = `${(um / pixelUm) * fitted * zoom}px`;
    setText($("scale").firstElementChild, `${um} µm`);
  }

  /** Shows the raw values under the pointer. */
  #read(event) {
    const pixels = this.#shown?.pixels;
    if (!pixels) return;
    const box = this.#box;
    const scale = Math.min(box.width / pixels.width, box.height / pixels.height);
    const x = Math.floor((event.offsetX - (box.width - pixels.width * scale) / 2) / scale);
    const y = Math.floor((event.offsetY - (box.height - pixels.height * scale) / 2) / scale);
    const inside = x >= 0 && y >= 0 && x < pixels.width && y < pixels.height;
    const values = inside ? this.#names().map((name, c) => `${name} ${count(pixels.channels[c][y * pixels.width + x])}`) : [];
    setText($("readout"), inside ? `row ${y}, column ${x}: ${values.join(", ")}` : "");
  }
}

function put(canvas, rgba, width, height) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}

function describe(result, channel, style, network) {
  const map = style === "off" ? "without Grad-CAM" : `Grad-CAM of ${network || "the ensemble"}`;
  return `${result.label}, probability ${result.probability.toFixed(2)}; ${channel}, ${map}`;
}
