// The history of a series: a table with filters, and the export of results.

import { file, save } from "./api.js";
import { css, viridis } from "./colormaps.js";
import { $, setOptions, el, setText, throttled, toast } from "./dom.js";
import { fovs, percent, stamp, stamped } from "./format.js";

const ROWS = 200;

export class History {
  #store;
  #open;
  #page = 0;
  #draw = throttled(() => this.refresh(false), 500);

  /** @param {(id: string) => void} open shows a field of view */
  constructor(store, open) {
    this.#store = store;
    this.#open = open;
    for (const event of ["entries", "selected"]) store.addEventListener(event, this.#draw);
    let shown = null;
    store.addEventListener("collections", () => {
      if (store.shown === shown) return;
      ({ shown } = store);
      this.#page = 0;
      this.#draw();
    });
    $("filter").addEventListener("input", () => this.#turnTo(0));
    $("filter").addEventListener("submit", (event) => event.preventDefault());
    $("filter").addEventListener("reset", () => setTimeout(() => this.#turnTo(0)));
    for (const left of ["pointerleave", "focusout"]) $("rows").addEventListener(left, this.#draw);
    $("newer").onclick = () => this.#turnTo(this.#page - 1);
    $("older").onclick = () => this.#turnTo(this.#page + 1);
    $("rows").addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-id]");
      if (row) this.#open(row.dataset.id);
    });
    for (const button of document.querySelectorAll("[data-export]")) {
      button.addEventListener("click", () => this.#export(button));
    }
  }

  set model({ manifest }) {
    setOptions($("byLabel"), [["", "all"], ...manifest.ensemble.classes.map((name) => [name, name])]);
  }

  #turnTo(page) {
    this.#page = page;
    this.refresh();
  }

  /** The filter, in the terms of `/v1/results`. */
  #filterValues() {
    const time = (id) => (Number.isNaN(stamped($(id).value)) ? null : new Date(stamped($(id).value)));
    const number = (id) => ($(id).value === "" ? null : Number($(id).value));
    return { label: $("byLabel").value, min: number("byMin"), max: number("byMax"), since: time("bySince"), until: time("byUntil") };
  }

  #matching() {
    const { label, min, max, since, until } = this.#filterValues();
    return (this.#store.shown?.entries ?? []).filter((entry) =>
      (!label || entry.label === label) &&
      (min === null || entry.probability >= min) && (max === null || entry.probability <= max) &&
      (since === null || entry.madeAt >= since) && (until === null || entry.madeAt < until));
  }

  /** Fills the table; unless it must be `now`, only when that does not disturb the user. */
  refresh(now = true) {
    if ($("history").hidden) return;
    // New rows would move the row that the user is about to click, and take its focus.
    if (!now && $("rows").matches(":hover, :focus-within")) {
      setText($("page"), "Newer results are shown when the pointer or the focus leaves the list.");
      return;
    }
    const all = this.#store.shown?.entries.length ?? 0;
    const matching = this.#matching().reverse();
    const pages = Math.max(1, Math.ceil(matching.length / ROWS));
    this.#page = Math.min(Math.max(0, this.#page), pages - 1);
    setText($("matches"), this.#invalidTime() ?? (all ? `${matching.length.toLocaleString("en")} of ${fovs(all)}, newest first` : ""));
    $("nothing").hidden = matching.length > 0;
    setText($("nothing"), emptiness(this.#store.shown, all));
    setText($("page"), pages > 1 ? `Page ${this.#page + 1} of ${pages}` : "");
    $("newer").disabled = this.#page === 0;
    $("older").disabled = this.#page >= pages - 1;
    $("rows").replaceChildren(...matching.slice(this.#page * ROWS, (this.#page + 1) * ROWS).map((entry) => this.#row(entry)));
  }

  /** Returns a message about a time that is invalid, or null if both times are valid. */
  #invalidTime() {
    let message = null;
    for (const id of ["bySince", "byUntil"]) {
      const wrong = $(id).value.trim() !== "" && Number.isNaN(stamped($(id).value));
      $(id).setAttribute("aria-invalid", wrong);
      if (wrong) message ??= `"${$(id).value}" is not a valid time and is ignored: use the form 2026-03-31 or 2026-03-31 17:05.`;
    }
    return message;
  }

  #row(entry) {
    const cell = (content) => el("td", {}, content);
    const swatch = el("span", { className: "swatch" });
    swatch.style.background = css(viridis, entry.probability);
    const name = entry.frame === undefined ? (entry.file ?? "–") : String(entry.frame);
    const late = entry.missed && this.#store.deadlineMs !== null;
    const chosen = entry.id === this.#store.selected;
    const row = el("tr", { data: { id: entry.id } },
      cell(el("button", { type: "button", textContent: name, "aria-label": `Show field of view ${name}` })), cell(stamp(entry.madeAt)), cell(entry.file ?? ""), cell(entry.label),
      el("td", { className: entry.reliable ? "" : "unreliable" }, swatch, entry.probability.toFixed(3)), cell(percent(entry.agreement)), cell(entry.entropy.toFixed(2)),
      cell(entry.place ? `${entry.place.x.toFixed(1)}, ${entry.place.y.toFixed(1)}` : ""),
      cell(`${entry.totalMs.toFixed(1)}${late ? " late" : ""}`), el("td", { className: "flagcell", textContent: entry.flags.join(" ") }));
    row.setAttribute("aria-selected", chosen);
    return row;
  }

  async #export(button) {
    const { shown } = this.#store;
    if (!shown) return toast("There is nothing to export yet.", { state: "warn" });
    const format = button.dataset.export;
    button.disabled = true;
    try {
      const name = `senoscope-${shown.title.replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80)}.${format}`;
      if (shown.kind === "stack" && format !== "csv") return toast("A dropped stack is exported as CSV.", { state: "warn" });
      const all = await file(`v1/results/export?${this.#query(shown)}&format=${format}`);
      save(shown.kind === "stack" ? new Blob([ofStack(await all.text(), shown)], { type: "text/csv" }) : all, name);
    } catch (error) {
      toast(`Nothing was exported: ${error.message}`, { state: "bad" });
    } finally {
      button.disabled = false;
    }
    return undefined;
  }

  /** Returns the query of the results that the table shows; on other views the filter is not applied. */
  #query(shown) {
    const query = new URLSearchParams(shown.uid ? { series: shown.uid } : { kind: "upload" });
    const { label, min, max, since, until } = $("history").hidden ? {} : this.#filterValues();
    if (label) query.set("label", label);
    if (min != null) query.set("min_probability", min);
    if (max != null) query.set("max_probability", max);
    const [first, last] = shown.kind === "stack" ? [shown.entries[0], shown.entries.at(-1)] : [];
    const from = since ?? (first && new Date(first.madeAt));
    const to = until ?? (last && new Date(last.madeAt + 1));
    if (from) query.set("from", from.toISOString());
    if (to) query.set("to", to.toISOString());
    return query;
  }
}

function emptiness(shown, all) {
  if (!shown) return "Connecting to the service…";
  if (all) return "No field of view passes the filter. Clear removes the filter.";
  if (!shown.complete) return "Reading the run log…";
  return shown.kind === "series" ? "No field of view of this series was classified. Choose another series at the top." : "No stack was posted yet. Drop a TIFF or NPY stack on this page, or choose a series at the top.";
}

/** Returns the lines of a stack's results: others may have been posted in the same period. */
export function ofStack(csv, stack) {
  const [heading, ...lines] = csv.split("\n");
  const id = (line) => /^"?([0-9a-f-]{36})/.exec(line)?.[1]; // text is quoted, and holds no line breaks
  return [heading, ...lines.filter((line) => stack.known.has(id(line))), ""].join("\n");
}
