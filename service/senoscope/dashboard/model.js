// The ensemble and the intensity range in force; changing the one, calibrating the other.

import { json, send } from "./api.js";
import { $, choose, el, facts, say } from "./dom.js";
import { count, date } from "./format.js";

const ASK_MS = 400;

/** Tells `changed` with what `/v1/model` says, whenever another ensemble is in force. */
export class Model extends EventTarget {
  #model = null;
  #range = null;
  #polling = false;

  constructor() {
    super();
    $("change").addEventListener("submit", (event) => this.#change(event));
    $("calibrate").addEventListener("submit", (event) => this.#calibrate(event));
    $("calibratefile").onclick = () => $("calibrationfile").click();
    $("calibrationfile").addEventListener("change", () => this.#calibrateWith($("calibrationfile").files[0]));
    $("uncalibrate").onclick = () => this.#act("Going back…", "The model's own range is in force.", () => send("v1/normalization", "DELETE"));
  }

  get current() {
    return this.#model;
  }

  /** Asks what is in force. */
  async refresh() {
    const [model, range, { ensembles }] = await Promise.all(["v1/model", "v1/normalization", "v1/models"].map((path) => json(path)));
    this.#take(model);
    this.#show(range);
    choose($("ensembles"), ensembles.map(({ name, folder }) => [folder ?? name, folder ?? name]));
  }

  /** Notices by a result that another ensemble, or another range, is in force now. */
  notice(result) {
    const other = this.#model && result.model.digest !== this.#model.digest;
    const range = this.#range && (result.normalization.source !== this.#range.source || result.normalization.high.some((high, c) => high !== this.#range.high[c]));
    if (other || range) this.refresh().catch(() => {});
  }

  #take(model) {
    const changed = model.digest !== this.#model?.digest;
    this.#model = model;
    if (!changed) return;
    const { manifest, engine } = model;
    $("starter").hidden = manifest.for_science;
    say($("starter").querySelector("span"), `The ${model.name} ensemble is in force: ${manifest.intended_use}`);
    say($("kiqr"), String(manifest.normalization.k_iqr));
    facts($("ensemble"), [
      ["name", `${model.name} ${model.version}`],
      ["digest", model.digest.slice(0, 16)],
      ["made", date(Date.parse(manifest.created))],
      ["intended use", manifest.intended_use],
      ["classes", `${manifest.ensemble.classes.join(", ")}; ${manifest.ensemble.classes[1]} above ${manifest.ensemble.threshold}`],
      ["field of view", `${manifest.input.height} × ${manifest.input.width} pixels of ${manifest.input.pixel_size_um ?? "?"} µm: ${manifest.input.channels.map(({ name }) => name).join(", ")}`],
      ["metrics", metrics(manifest.metrics)],
      ["authors", manifest.authors.join(", ") || "–"],
      ["licence", manifest.licence],
      ["computes on", `${engine.device}: ${engine.reason}`],
    ]);
    $("networks").replaceChildren(...manifest.networks.map((network) =>
      el("tr", {}, ...[network.name, network.backbone_weights.source, network.gradcam_grid.join(" × "), network.variants.map(({ precision }) => precision).join(", ")].map((text) => el("td", { textContent: text })))));
    this.dispatchEvent(new CustomEvent("changed", { detail: model }));
  }

  #show(range) {
    this.#range = range;
    const { session } = range;
    const own = this.#model.manifest.normalization;
    const words = session && range.source === "session"
      ? `Calibrated for this session on ${session.fovs} fields of view (${session.fitted_on === "stream" ? `of ${session.series_id ?? "the stream"}` : "a posted stack"}), ${date(Date.parse(session.calibrated_at))}.${range.survives_restart ? "" : " A restart forgets it: there is no run log."}`
      : `The model's own, fitted on ${own.fitted_on}.`;
    say($("rangesource"), words);
    $("ranges").replaceChildren(...range.channels.map((name, c) => el("tr", {}, ...[
      name, count(range.low[c]), count(range.high[c]), `${count(own.channels[c].low)} to ${count(own.channels[c].high)}`,
    ].map((text) => el("td", { textContent: text })))));
    $("uncalibrate").disabled = !session;
    const { calibrating } = range;
    $("calibrating").hidden = !calibrating;
    if (calibrating) {
      $("calibrating").value = calibrating.of ? calibrating.fovs / calibrating.of : 1;
      say($("calibration"), calibrating.of ? `${calibrating.fovs} of ${calibrating.of} fields of view collected…` : "Fitting…");
    }
    if (range.problem) say($("calibration"), range.problem);
  }

  async #change(event) {
    event.preventDefault();
    const name = $("ensembles").value;
    const button = $("change").querySelector("button");
    button.disabled = true;
    say($("changed"), `Loading, verifying and warming up ${name}; the one in force goes on meanwhile…`);
    try {
      this.#take(await send("v1/model", "POST", { name }, { timeoutMs: 300_000 }));
      this.#show(await json("v1/normalization"));
      say($("changed"), `${name} is in force.`);
    } catch (error) {
      say($("changed"), `Nothing was changed: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }

  async #calibrate(event) {
    event.preventDefault();
    const before = this.#range?.session?.calibrated_at;
    const waiting = "Waiting for the next fields of view…";
    const begun = await this.#act(waiting, waiting, () =>
      json(`v1/normalization/calibrate?fovs=${$("fovs").value}`, { method: "POST" }));
    if (begun && !this.#polling) await this.#await(before);
  }

  async #calibrateWith(file) {
    if (!file) return;
    $("calibrationfile").value = "";
    await this.#act(`Sending ${file.name}…`, `Calibrated with ${file.name}.`, () =>
      json("v1/normalization/calibrate", { method: "POST", body: file, timeoutMs: 300_000, headers: { "Content-Type": file.type || "application/octet-stream" } }));
  }

  /** Until the calibration that was begun is done, or is no longer. */
  async #await(before) {
    this.#polling = true;
    try {
      for (;;) {
        await new Promise((done) => setTimeout(done, ASK_MS));
        const range = await json("v1/normalization");
        this.#show(range);
        if (range.calibrating) continue;
        if (!range.problem) say($("calibration"), range.session && range.session.calibrated_at !== before ? `Calibrated on ${range.session.fovs} fields of view; results from now on say so.` : "The calibration was given up.");
        return;
      }
    } catch (error) {
      say($("calibration"), `How far it is cannot be told: ${error.message}`);
    } finally {
      this.#polling = false;
    }
  }

  async #act(doing, done, act) {
    try {
      say($("calibration"), doing);
      const range = await act();
      say($("calibration"), [done, ...(range.warnings ?? []).map((warning) => `Note: ${warning}.`)].join(" "));
      this.#show(range); // which may tell more
      return true;
    } catch (error) {
      say($("calibration"), `Nothing was changed: ${error.message}`);
      return false;
    }
  }
}

function metrics(found) {
  const rows = Object.entries(found ?? {}).filter(([, value]) => typeof value === "number");
  return rows.map(([name, value]) => `${name.replaceAll("_", " ")} ${Number.isInteger(value) ? value : value.toFixed(3)}`).join(", ") || "none were recorded";
}
