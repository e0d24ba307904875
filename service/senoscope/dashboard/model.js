// The ensemble in use and the intensity range in force; change of the ensemble, calibration of the range.

import { json } from "./api.js";
import { $, rowOf, setFacts, setOptions, setText } from "./dom.js";
import { count, date } from "./format.js";

const POLL_MS = 400;

/** Dispatches `changed` with the answer of `/v1/model`, whenever another ensemble is in use. */
export class Model extends EventTarget {
  /** The answer of `/v1/model`; null before the first. */
  current = null;
  #range = null;
  #polling = false;

  constructor() {
    super();
    $("change").addEventListener("submit", (event) => this.#change(event));
    $("calibrate").addEventListener("submit", (event) => this.#calibrate(event));
    $("calibratefile").onclick = () => $("calibrationfile").click();
    $("calibrationfile").addEventListener("change", () => this.#calibrateWith($("calibrationfile").files[0]));
    $("uncalibrate").onclick = () => this.#sendCalibration("Discarding the calibration…", "The model's range is in force.", () => json("v1/normalization", { method: "DELETE" }));
  }

  /** Fetches the ensemble in use and the range in force. */
  async refresh() {
    const [model, range, { ensembles }] = await Promise.all(["v1/model", "v1/normalization", "v1/models"].map((path) => json(path)));
    this.#setModel(model);
    this.#show(range);
    setOptions($("ensembles"), ensembles.map(({ name, folder }) => [folder ?? name, folder ?? name]));
  }

  /** Fetches ensemble and range again if a result was computed with others than those shown. */
  checkResult(result) {
    const other = this.current && (result.model.digest !== this.current.digest || result.model.precision !== this.current.engine.precision);
    const range = this.#range && (result.normalization.source !== this.#range.source || result.normalization.high.some((high, c) => high !== this.#range.high[c]));
    if (other || range) this.refresh().catch(() => {});
  }

  #setModel(model) {
    const changed = !this.current || identity(model) !== identity(this.current);
    this.current = model;
    if (!changed) return;
    const { manifest, engine } = model;
    $("starter").hidden = manifest.for_science;
    setText($("starter").querySelector("span"), `The ensemble ${model.name} is in use: ${manifest.intended_use}`);
    setText($("kiqr"), String(manifest.normalization.k_iqr));
    setFacts($("ensemble"), [
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
      ["precision", precisionText(engine)],
      ...engine.rejected.map(({ precision, network, reasons }) => [`${precision} rejected`, `${network ?? "whole ensemble"}: ${reasons.join("; ")}`]),
    ]);
    $("networks").replaceChildren(...manifest.networks.map((network) =>
      rowOf([network.name, network.backbone_weights.source, network.gradcam_grid.join(" × "), network.variants.map(({ precision }) => precision).join(", ")])));
    this.dispatchEvent(new CustomEvent("changed", { detail: model }));
  }

  #show(range) {
    this.#range = range;
    const { session } = range;
    const ofModel = this.current.manifest.normalization;
    const source = session && range.source === "session"
      ? `Calibrated for this session on ${session.fovs} fields of view (${session.fitted_on === "stream" ? `of ${session.series_id ?? "the stream"}` : "a posted stack"}), ${date(Date.parse(session.calibrated_at))}.${range.survives_restart ? "" : " It is lost when the service restarts, because there is no run log."}`
      : `The model's range, fitted on ${ofModel.fitted_on}.`;
    setText($("rangesource"), source);
    $("ranges").replaceChildren(...range.channels.map((name, c) =>
      rowOf([name, count(range.low[c]), count(range.high[c]), `${count(ofModel.channels[c].low)} to ${count(ofModel.channels[c].high)}`])));
    $("uncalibrate").disabled = !session;
    const { calibrating } = range;
    $("calibrating").hidden = !calibrating;
    if (calibrating) {
      $("calibrating").value = calibrating.of ? calibrating.fovs / calibrating.of : 1;
      setText($("calibration"), calibrating.of ? `${calibrating.fovs} of ${calibrating.of} fields of view collected…` : "Fitting…");
    }
    if (range.problem) setText($("calibration"), range.problem);
  }

  async #change(event) {
    event.preventDefault();
    const name = $("ensembles").value;
    const precision = $("precision").value || undefined;
    const button = $("change").querySelector("button");
    button.disabled = true;
    setText($("changed"), `Loading, verifying and warming up ${name}; the current ensemble stays in use meanwhile…`);
    try {
      const headers = { "Content-Type": "application/json" };
      this.#setModel(await json("v1/model", { method: "POST", body: JSON.stringify({ name, precision }), headers, timeoutMs: 300_000 }));
      this.#show(await json("v1/normalization"));
      const used = this.current.engine.precision;
      setText($("changed"), `${name} is in use, in ${used}${precision && precision !== "auto" && precision !== used ? `: ${precision} was rejected` : ""}.`);
    } catch (error) {
      setText($("changed"), `Nothing was changed: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }

  async #calibrate(event) {
    event.preventDefault();
    const before = this.#range?.session?.calibrated_at;
    const waiting = "Waiting for the next fields of view…";
    const begun = await this.#sendCalibration(waiting, waiting, () =>
      json(`v1/normalization/calibrate?fovs=${$("fovs").value}`, { method: "POST" }));
    if (begun && !this.#polling) await this.#followCalibration(before);
  }

  async #calibrateWith(file) {
    if (!file) return;
    $("calibrationfile").value = "";
    await this.#sendCalibration(`Sending ${file.name}…`, `Calibrated with ${file.name}.`, () =>
      json("v1/normalization/calibrate", { method: "POST", body: file, timeoutMs: 300_000, headers: { "Content-Type": file.type || "application/octet-stream" } }));
  }

  /** Shows the progress of a calibration until it is done or cancelled. */
  async #followCalibration(before) {
    this.#polling = true;
    try {
      for (;;) {
        await new Promise((done) => setTimeout(done, POLL_MS));
        const range = await json("v1/normalization");
        this.#show(range);
        if (range.calibrating) continue;
        if (!range.problem) setText($("calibration"), range.session && range.session.calibrated_at !== before ? `Calibrated on ${range.session.fovs} fields of view; new results use this range.` : "The calibration was cancelled.");
        return;
      }
    } catch (error) {
      setText($("calibration"), `The progress is unknown: ${error.message}`);
    } finally {
      this.#polling = false;
    }
  }

  async #sendCalibration(doing, done, act) {
    try {
      setText($("calibration"), doing);
      const range = await act();
      setText($("calibration"), [done, ...(range.warnings ?? []).map((warning) => `Note: ${warning}.`)].join(" "));
      this.#show(range); // after the text: it may replace it with a problem
      return true;
    } catch (error) {
      setText($("calibration"), `Nothing was changed: ${error.message}`);
      return false;
    }
  }
}

/** Returns what differs between two ensembles, or between two ways to compute one. */
function identity({ digest, engine: { precision, fp32_networks, rejected } }) {
  return JSON.stringify([digest, precision, fp32_networks, rejected]);
}

function precisionText({ precision, fp32_networks: others, gate }) {
  const parts = [precision];
  if (others.length) parts.push(`${others.join(", ")} in fp32`);
  if (gate) parts.push(`within ${gate.ensemble.max_abs_probability.toPrecision(2)} of fp32 on ${gate.ensemble.fovs} reference fields of view`);
  return parts.join("; ");
}

function metrics(found) {
  const rows = Object.entries(found ?? {}).filter(([, value]) => typeof value === "number");
  return rows.map(([name, value]) => `${name.replaceAll("_", " ")} ${Number.isInteger(value) ? value : value.toFixed(3)}`).join(", ") || "not recorded";
}
