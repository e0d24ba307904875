// Keeping what the page shows complete: series and their results out of the run log, whatever was missed.

import { json } from "./api.js";
import { withoutResult } from "./scanplan.js";

const PAGE = 1000;
const MOST_PAGES = 50;
const MOST_SERIES = 50;
const MOST_RANGES = 10_000;

const logged = (summary) => Object.values(summary.labels).reduce((sum, n) => sum + n, 0);

export class Sync {
  #store;
  #filling = new Map();
  #short = new Set();

  constructor(store) {
    this.#store = store;
  }

  /** The series that the service knows; the shown one is completed if results of it are missing here. */
  async refresh() {
    const { series: summaries } = await json(`v1/series?limit=${MOST_SERIES}`);
    this.#store.describe(summaries);
    const { shown } = this.#store;
    if (shown?.kind === "series" && shown.summary && shown.complete) {
      const missing = logged(shown.summary) > shown.entries.length && !shown.full;
      // What was logged a moment ago is still on its way here: missing twice is missing.
      if (missing && this.#short.has(shown.key)) await this.fill(shown, { again: true });
      if (missing) this.#short.add(shown.key);
      else this.#short.delete(shown.key);
      await this.#explain(shown);
    }
    return summaries;
  }

  /** Asks why frames have no result, while there are some of which that is not known. */
  async #explain(series) {
    const without = withoutResult(series.entries, series.summary, series.reasons);
    if (!without.some(({ kind }) => kind === "unknown")) return;
    const { ranges } = await json(`v1/series/${series.uid}/frames?limit=${MOST_RANGES}`);
    this.#store.explain(series, ranges);
  }

  /** Every result of a series or of the posted stacks, newest first; once, unless asked for again. */
  fill(collection, { again = false } = {}) {
    if (collection.kind === "stack" || (collection.complete && !again)) return Promise.resolve();
    let filling = this.#filling.get(collection.key);
    if (!filling) {
      filling = this.#fetch(collection).finally(() => this.#filling.delete(collection.key));
      this.#filling.set(collection.key, filling);
    }
    return filling;
  }

  /** After the connection was lost. */
  async catchUp() {
    await this.refresh();
    const { shown } = this.#store;
    if (shown) await this.fill(shown, { again: true });
    // Those that are not shown are completed when they are.
    for (const collection of this.#store.collections.values()) if (collection !== shown) collection.complete = false;
  }

  async #fetch(collection) {
    const which = collection.uid ? `series=${collection.uid}` : "kind=upload";
    let cursor = "";
    const before = collection.complete;
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const { results, next } = await json(`v1/results?${which}&limit=${PAGE}${cursor}`, { timeoutMs: 60_000 });
      const news = results.some(({ id }) => !collection.known.has(id));
      this.#store.fill(collection, results);
      // What was complete before misses only what is newer than the last page of old acquaintances, unless
      // the log's own count says otherwise.
      const enough = collection.summary && collection.entries.length >= logged(collection.summary);
      if (next === undefined || (before && !news && enough)) break;
      cursor = `&cursor=${next}`;
    }
    this.#store.completed(collection);
  }
}
