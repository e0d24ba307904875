// Synchronisation with the run log: series and their results, including those that the page missed.

import { json } from "./api.js";
import { withoutResult } from "./scanplan.js";

const PAGE = 1000;
const MAX_PAGES = 50;
const MAX_SERIES = 50;
const MAX_RANGES = 10_000;

const logged = (summary) => Object.values(summary.labels).reduce((sum, n) => sum + n, 0);

export class Sync {
  #store;
  #fetching = new Map();
  #incomplete = new Set();

  constructor(store) {
    this.#store = store;
  }

  /** Fetches the list of series, and the missing results of the shown one. */
  async refresh() {
    const { series: summaries } = await json(`v1/series?limit=${MAX_SERIES}`);
    this.#store.updateSeries(summaries);
    const { shown } = this.#store;
    if (shown?.kind === "series" && shown.summary && shown.complete) {
      const missing = logged(shown.summary) > shown.entries.length && !shown.full;
      // Results that were logged a moment ago may still arrive, so only those missing twice are fetched.
      if (missing && this.#incomplete.has(shown.key)) await this.fetchAll(shown, { again: true });
      if (missing) this.#incomplete.add(shown.key);
      else this.#incomplete.delete(shown.key);
      await this.#fetchReasons(shown);
    }
    return summaries;
  }

  /** Fetches the reasons of frames without a result, if some are unknown. */
  async #fetchReasons(series) {
    const without = withoutResult(series.entries, series.summary, series.reasons);
    if (!without.some(({ kind }) => kind === "unknown")) return;
    const { ranges } = await json(`v1/series/${series.uid}/frames?limit=${MAX_RANGES}`);
    this.#store.setReasons(series, ranges);
  }

  /** Fetches every result of a series or of the posted stacks, newest first; once, unless `again` is set. */
  fetchAll(collection, { again = false } = {}) {
    if (collection.kind === "stack" || (collection.complete && !again)) return Promise.resolve();
    let fetching = this.#fetching.get(collection.key);
    if (!fetching) {
      fetching = this.#fetch(collection).finally(() => this.#fetching.delete(collection.key));
      this.#fetching.set(collection.key, fetching);
    }
    return fetching;
  }

  /** Fetches what was missed while the connection was lost. */
  async catchUp() {
    await this.refresh();
    const { shown } = this.#store;
    if (shown) await this.fetchAll(shown, { again: true });
    // Other collections are completed when they are shown.
    for (const collection of this.#store.collections.values()) if (collection !== shown) collection.complete = false;
  }

  async #fetch(collection) {
    const which = collection.uid ? `series=${collection.uid}` : "kind=upload";
    let cursor = "";
    const before = collection.complete;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const { results, next } = await json(`v1/results?${which}&limit=${PAGE}${cursor}`, { timeoutMs: 60_000 });
      const added = results.some(({ id }) => !collection.known.has(id));
      this.#store.addEarlier(collection, results);
      // A collection that was complete misses only results that are newer than the first page without new
      // ones, unless the count of the run log is higher.
      const enough = collection.summary && collection.entries.length >= logged(collection.summary);
      if (next === undefined || (before && !added && enough)) break;
      cursor = `&cursor=${next}`;
    }
    this.#store.completed(collection);
  }
}
