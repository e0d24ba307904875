// The history of a series: a table to filter, and its export.

import { download, save, text } from "./api.js";
import { css, viridis } from "./colormaps.js";
import { $, choose, el, say, throttled, toast } from "./dom.js";
import { percent, plural, stamp, stamped } from "./format.js";

const ROWS = 200;

export class History {
  #store;
  #open;
  #page = 0;
  #draw = throttled(() => this.#table(false), 500);

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
    $("filter").addEventListener("input", () => this.#filter());
    $("filter").addEventListener("submit", (event) => event.preventDefault());
    $("filter").addEventListener("reset", () => setTimeout(() => this.#filter()));
    for (const left of ["pointerleave", "focusout"]) $("rows").addEventListener(left, this.#draw);
    $("newer").onclick = () => this.#turn(-1);
    $("older").onclick = () => this.#turn(1);
    $("rows").addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-id]");
      if (row) this.#open(row.dataset.id);
    });
    for (const button of document.querySelectorAll("[data-export]")) {
      button.addEventListener("click", () => this.#export(button));
    }
  }

  set model({ manifest }) {
    choose($("byLabel"), [["", "all"], ...manifest.ensemble.classes.map((name) => [name, name])]);
  }

  refresh() {
    this.#table();
  }

  #turn(by) {
    this.#page += by;
    this.#table();
  }

  #filter() {
    this.#page = 0;
    this.#table();
  }

  /** What is asked for, in the terms of `/v1/results`. */
  #wanted() {
    const time = (id) => (Number.isNaN(stamped($(id).value)) ? null : new Date(stamped($(id).value)));
    const number = (id) => ($(id).value === "" ? null : Number($(id).value));
    return { label: $("byLabel").value, least: number("byMin"), most: number("byMax"), since: time("bySince"), until: time("byUntil") };
  }

  #matching() {
    const { label, least, most, since, until } = this.#wanted();
    return (this.#store.shown?.entries ?? []).filter((entry) =>
      (!label || entry.label === label) &&
      (least === null || entry.probability >= least) && (most === null || entry.probability <= most) &&
      (since === null || entry.madeAt >= since) && (until === null || entry.madeAt < until));
  }

  #table(now = true) {
    if ($("history").hidden) return;
    // Rows that came in between would take the click, or the focus, of whoever is about to choose one.
    if (!now && $("rows").matches(":hover, :focus-within")) {
      say($("page"), "Newer results wait until you leave the list.");
      return;
    }
    const all = this.#store.shown?.entries.length ?? 0;
    const matching = this.#matching().reverse();
    const pages = Math.max(1, Math.ceil(matching.length / ROWS));
    this.#page = Math.min(Math.max(0, this.#page), pages - 1);
    say($("matches"), this.#unclear() ?? (all ? `${matching.length.toLocaleString("en")} of ${plural(all, "field of view", "fields of view")}, newest first` : ""));
    $("nothing").hidden = matching.length > 0;
    say($("nothing"), emptiness(this.#store.shown, all));
    say($("page"), pages > 1 ? `Page ${this.#page + 1} of ${pages}` : "");
    $("newer").disabled = this.#page === 0;
    $("older").disabled = this.#page >= pages - 1;
    $("rows").replaceChildren(...matching.slice(this.#page * ROWS, (this.#page + 1) * ROWS).map((entry) => this.#row(entry)));
  }

  /** What is wrong with a time that was typed; null if nothing is. */
  #unclear() {
    let words = null;
    for (const id of ["bySince", "byUntil"]) {
      const wrong = $(id).value.trim() !== "" && Number.isNaN(stamped($(id).value));
      $(id).setAttribute("aria-invalid", wrong);
      if (wrong) words ??= `"${$(id).value}" is no time, and does not filter: write 2026-03-31 or 2026-03-31 17:05.`;
    }
    return words;
  }

  #row(entry) {
    const cell = (content) => el("td", {}, content);
    const swatch = el("span", { className: "swatch" });
    swatch.style.background = css(viridis, entry.probability);
    const name = entry.frame === undefined ? (entry.file ?? "–") : String(entry.frame);
    const late = entry.missed && this.#store.shown.deadlineHolds(this.#store.deadlineMs);
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
      const path = `v1/results/export?${this.#query(shown)}&format=`;
      if (shown.kind !== "stack") await download(path + format, name);
      else if (format === "csv") save(new Blob([ofStack(await text(`${path}csv`), shown)], { type: "text/csv" }), name);
      else toast("A dropped stack is exported as CSV.", { state: "warn" });
    } catch (error) {
      toast(`Nothing was exported: ${error.message}`, { state: "bad" });
    } finally {
      button.disabled = false;
    }
    return undefined;
  }

  /** Exactly what the table shows; only there is a filter in force that can be seen. */
  #query(shown) {
    const query = new URLSearchParams(shown.uid ? { series: shown.uid } : { kind: "upload" });
    const { label, least, most, since, until } = $("history").hidden ? {} : this.#wanted();
    if (label) query.set("label", label);
    if (least != null) query.set("min_probability", least);
    if (most != null) query.set("max_probability", most);
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
  if (all) return "No field of view passes the filter. Clear shows all of them.";
  if (!shown.complete) return "Looking into the run log…";
  return shown.kind === "series" ? "No field of view of this series was classified. Choose another series at the top." : "No stack was posted yet. Drop a TIFF or NPY stack on this page, or choose a series at the top.";
}

/** The lines of a stack's own results: others may have been posted in between. */
export function ofStack(csv, stack) {
  const [heading, ...lines] = csv.split("\n");
  const id = (line) => /^"?([0-9a-f-]{36})/.exec(line)?.[1]; // text is quoted, and holds no line breaks
  return [heading, ...lines.filter((line) => stack.known.has(id(line))), ""].join("\n");
}
