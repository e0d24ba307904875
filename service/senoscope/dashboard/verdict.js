// What was found in the field of view on the screen: large, and in words.

import { $, el, say } from "./dom.js";
import { clock, madeAt, milliseconds } from "./format.js";
import { casts } from "./store.js";

export class Verdict {
  #classes = ["control", "senescent"];
  #threshold = 0.5;

  set model({ manifest: { ensemble } }) {
    this.#classes = ensemble.classes;
    this.#threshold = ensemble.threshold;
    say($("positive"), ensemble.classes[1]);
  }

  show(result) {
    const blank = result === null;
    say($("where"), blank ? "–" : whereabouts(result));
    say($("label"), blank ? "–" : result.label);
    $("label").dataset.positive = !blank && result.label === this.#classes[1];
    say($("probability"), blank ? "–" : inTwoDigits(result.probability));
    say($("uncertainty"), blank ? "–" : this.#uncertainty(result));
    this.#votes(blank ? {} : result.networks);
    // What holds for the ensemble in force stands over the whole page already.
    const flags = blank ? [] : result.flags.filter(({ code }) => code !== "not_for_science" || $("starter").hidden);
    $("verdict").dataset.reliable = !flags.some(casts);
    const lines = flags.length ? flags.map((flag) => el("li", { textContent: inWords(flag), title: flag.message })) : [el("li", { className: "none", textContent: "no flags" })];
    if ($("flags").textContent !== lines.map((line) => line.textContent).join("")) $("flags").replaceChildren(...lines);
  }

  #votes(networks) {
    const list = $("votes");
    const names = Object.keys(networks);
    if (list.dataset.names !== names.join()) {
      list.dataset.names = names.join();
      list.replaceChildren(...names.map((name) => {
        const tick = el("span", { className: "tick" });
        tick.style.left = `${this.#threshold * 100}%`;
        return el("li", {},
          el("span", { className: "name", textContent: name, title: name }),
          el("span", { className: "track" }, el("span", { className: "fill" }), tick),
          el("span", { className: "value" }));
      }));
    }
    names.forEach((name, k) => {
      const row = list.children[k];
      const p = networks[name];
      row.dataset.positive = p > this.#threshold;
      row.querySelector(".fill").style.transform = `scaleX(${p})`;
      say(row.querySelector(".value"), inTwoDigits(p));
    });
  }

  #uncertainty({ uncertainty: { entropy, mutual_information: disagreement, agreement }, networks }) {
    const all = Object.keys(networks).length;
    const sure = entropy < 0.3 ? "Sure" : entropy < 0.7 ? "Fairly sure" : "Unsure";
    return `${sure}: ${Math.round(agreement * all)} of ${all} networks agree. Entropy ${entropy.toFixed(2)} bit, of which ${disagreement.toFixed(2)} from disagreement.`;
  }
}

/** Never 1.00 or 0.00 where it is not: a probability that was rounded to certainty would say too much. */
export function inTwoDigits(p) {
  if (p > 0.995 && p < 1) return ">0.99";
  if (p < 0.005 && p > 0) return "<0.01";
  return p.toFixed(2);
}

/** A field of view in one line. */
export function summaryOf({ frame, file, label, probability, agreement, entropy, flags, place }) {
  const words = [frame === undefined ? (file ?? "FOV") : `FOV ${frame}`, `${label} ${inTwoDigits(probability)}`];
  words.push(`agreement ${Math.round(agreement * 100)} %`, `entropy ${entropy.toFixed(2)} bit`);
  if (place) words.push(`x ${place.x.toFixed(1)}, y ${place.y.toFixed(1)} µm`);
  if (flags.length) words.push(`unreliable: ${flags.join(", ")}`);
  return words.join(" · ");
}

function inWords({ code, channel, value, message }) {
  if (code !== "saturated" || value === undefined) return message;
  return `${channel} saturated in ${value < 0.1 ? (value * 100).toFixed(1) : Math.round(value * 100)} % of pixels`;
}

function whereabouts({ source, id, timing_ms: timing }) {
  const name = source.series_id ?? source.file ?? "posted";
  const frame = source.frame === undefined ? "" : ` · FOV ${source.frame}`;
  return `${name}${frame} · ${clock(madeAt(id))} · ${milliseconds(timing.total)}`;
}
