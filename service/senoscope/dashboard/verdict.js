// The result of the field of view on the screen, as text.

import { $, el, rebuild, setText } from "./dom.js";
import { clock, madeAt, milliseconds } from "./format.js";
import { isUnreliable } from "./store.js";

export class Verdict {
  #classes = ["control", "senescent"];
  #threshold = 0.5;

  set model({ manifest: { ensemble } }) {
    this.#classes = ensemble.classes;
    this.#threshold = ensemble.threshold;
    setText($("positive"), ensemble.classes[1]);
  }

  show(result) {
    const blank = result === null;
    setText($("where"), blank ? "–" : sourceText(result));
    setText($("label"), blank ? "–" : result.label);
    $("label").dataset.positive = !blank && result.label === this.#classes[1];
    setText($("probability"), blank ? "–" : inTwoDigits(result.probability));
    setText($("uncertainty"), blank ? "–" : this.#uncertainty(result));
    this.#votes(blank ? {} : result.networks);
    // The flag of the ensemble in use is shown at the top of the page.
    const flags = blank ? [] : result.flags.filter(({ code }) => code !== "not_for_science" || $("starter").hidden);
    $("verdict").dataset.reliable = !flags.some(isUnreliable);
    rebuild($("flags"), flags, () => (flags.length
      ? flags.map((flag) => el("li", { textContent: flagText(flag), title: flag.message }))
      : [el("li", { className: "none", textContent: "no flags" })]));
  }

  #votes(networks) {
    const list = $("votes");
    const names = Object.keys(networks);
    rebuild(list, [names, this.#threshold], () => names.map((name) => {
      const tick = el("span", { className: "tick" });
      tick.style.left = `${this.#threshold * 100}%`;
      return el("li", {},
        el("span", { className: "name", textContent: name, title: name }),
        el("span", { className: "track" }, el("span", { className: "fill" }), tick),
        el("span", { className: "value" }));
    }));
    names.forEach((name, k) => {
      const row = list.children[k];
      const p = networks[name];
      row.dataset.positive = p > this.#threshold;
      row.querySelector(".fill").style.transform = `scaleX(${p})`;
      setText(row.querySelector(".value"), inTwoDigits(p));
    });
  }

  #uncertainty({ uncertainty: { entropy, mutual_information: disagreement, agreement }, networks }) {
    const all = Object.keys(networks).length;
    const sure = entropy < 0.3 ? "Sure" : entropy < 0.7 ? "Fairly sure" : "Unsure";
    return `${sure}: ${Math.round(agreement * all)} of ${all} networks agree. Entropy ${entropy.toFixed(2)} bit, of which ${disagreement.toFixed(2)} from disagreement.`;
  }
}

/** Returns a probability with two digits, without rounding it to 1.00 or 0.00. */
export function inTwoDigits(p) {
  if (p > 0.995 && p < 1) return ">0.99";
  if (p < 0.005 && p > 0) return "<0.01";
  return p.toFixed(2);
}

/** Returns a field of view in one line. */
export function summaryOf({ frame, file, label, probability, agreement, entropy, flags, place }) {
  const parts = [frame === undefined ? (file ?? "FOV") : `FOV ${frame}`, `${label} ${inTwoDigits(probability)}`];
  parts.push(`agreement ${Math.round(agreement * 100)} %`, `entropy ${entropy.toFixed(2)} bit`);
  if (place) parts.push(`x ${place.x.toFixed(1)}, y ${place.y.toFixed(1)} µm`);
  if (flags.length) parts.push(`unreliable: ${flags.join(", ")}`);
  return parts.join(" · ");
}

function flagText({ code, channel, value, message }) {
  if (code !== "saturated" || value === undefined) return message;
  return `${channel} saturated in ${value < 0.1 ? (value * 100).toFixed(1) : Math.round(value * 100)} % of pixels`;
}

function sourceText({ source, id, model, timing_ms: timing }) {
  const name = source.series_id ?? source.file ?? "posted";
  const frame = source.frame === undefined ? "" : ` · FOV ${source.frame}`;
  return `${name}${frame} · ${clock(madeAt(id))} · ${milliseconds(timing.total)} · ${model.precision}`;
}
