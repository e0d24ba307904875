// The data of the page: series and stacks with their fields of view, the shown one and the selected one.

import { madeAt } from "./format.js";

// In one collection; the oldest are removed. The run log holds all of them.
const MAX_ENTRIES = 50_000;
// Full results with their Grad-CAM grids, 10 kB each.
const MAX_RESULTS = 96;
// More than are fetched at once (sync.js), or removed ones would be added again and again.
const MAX_COLLECTIONS = 80;
// Series whose fields of view are kept; those of others are fetched when they are shown again.
const MAX_KEPT = 3;
// The page follows another microscope after so long without a result from the current one.
const OTHER_MICROSCOPE_MS = 10_000;

/** Returns the key of the collection that a result belongs to. */
const keyOf = ({ source }) => (source.series_uid ? `series:${source.series_uid}` : "uploads");

// Flags that do not concern the pixels, but the ensemble as a whole, or the run log.
const HARMLESS = new Set(["not_for_science", "not_logged"]);

/** Returns whether a flag marks the result of a field of view as unreliable. */
export const isUnreliable = ({ code }) => !HARMLESS.has(code);

/** Returns the part of a result that lists, the timeline and the map need. */
function entryOf(result) {
  const { source, timing_ms: timing, flags } = result;
  return {
    id: result.id,
    frame: source.frame,
    file: source.file,
    label: result.label,
    probability: result.probability,
    entropy: result.uncertainty.entropy,
    agreement: result.uncertainty.agreement,
    place: source.position_um ? { x: source.position_um.x, y: source.position_um.y } : null,
    pixelUm: source.pixel_size_um ?? null,
    totalMs: timing.total,
    missed: source.kind === "stream" && result.deadline_met === false, // a posted stack has no deadline
    // The flag of the starter ensemble is on every result, and is shown once, at the top.
    reliable: flags.every((flag) => !isUnreliable(flag)),
    flags: flags.filter(({ code }) => code !== "not_for_science").map(({ code, channel }) => (channel ? `${code}:${channel}` : code)),
    madeAt: madeAt(result.id),
  };
}

/** The fields of view of a series or stack, in the order in which they were classified. */
class Collection {
  /** @param {"series" | "uploads" | "stack"} kind */
  constructor(key, kind, title) {
    Object.assign(this, { key, kind, title, entries: [], complete: false, summary: null, reasons: [] });
    this.known = new Map();
  }

  /** Whether no more entries of the run log can be kept. */
  get full() {
    return this.entries.length >= MAX_ENTRIES;
  }

  get uid() {
    return this.kind === "series" ? this.key.slice("series:".length) : null;
  }

  /** Adds a result; returns false if it was there already. */
  add(result) {
    if (this.known.has(result.id)) return false;
    const entry = entryOf(result);
    let at = this.entries.length;
    while (at > 0 && this.entries[at - 1].id > entry.id) at -= 1;
    this.entries.splice(at, 0, entry);
    this.known.set(entry.id, entry);
    if (this.entries.length > MAX_ENTRIES) this.known.delete(this.entries.shift().id);
    return true;
  }

  /** Adds many results, in any order; returns how many are new. */
  addAll(results) {
    const fresh = results.filter(({ id }) => !this.known.has(id)).map(entryOf);
    for (const entry of fresh) this.known.set(entry.id, entry);
    if (!fresh.length) return 0;
    this.entries = this.entries.concat(fresh).sort((a, b) => (a.id < b.id ? -1 : 1));
    for (const gone of this.entries.splice(0, this.entries.length - MAX_ENTRIES)) this.known.delete(gone.id);
    return fresh.length;
  }

  /** Removes the fields of view, to be fetched again. */
  clear() {
    this.entries = [];
    this.known.clear();
    this.complete = false;
  }

  indexOf(id) {
    let [low, high] = [0, this.entries.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return this.entries[low]?.id === id ? low : -1;
  }
}

/** Dispatches the events `collections`, `entries`, `selected` and `follow` on changes. */
export class Store extends EventTarget {
  collections = new Map();
  shown = null;
  selected = null;
  follow = true;
  deadlineMs = null;
  #results = new Map();
  #recent = [];

  collection(key, kind, title) {
    let found = this.collections.get(key);
    if (!found) {
      found = new Collection(key, kind, title);
      this.collections.set(key, found);
      this.#evict(found);
      this.#emit("collections");
    } else if (title && found.title !== title) {
      found.title = title;
      this.#emit("collections");
    }
    return found;
  }

  /** Adds a result of the live socket, or of a stack that was dropped on the page. */
  addResult(result, into = null) {
    const { source } = result;
    const collection = into ?? this.collection(
      keyOf(result), source.series_uid ? "series" : "uploads", source.series_uid ? source.series_id : "Posted stacks",
    );
    this.storeResult(result);
    if (!collection.add(result)) return;
    collection.instrument = source.instrument;
    collection.lastResultAt = Date.now();
    if (this.follow && source.series_uid && !this.#holdsView(collection)) {
      if (this.shown !== collection) this.show(collection);
      this.select(result.id);
    }
    if (collection === this.shown) this.#emit("entries");
  }

  /** Updates the summaries of all series, newest first; series that the service does not list are not live. */
  updateSeries(summaries) {
    const listed = new Set(summaries.map(({ series_uid: uid }) => `series:${uid}`));
    let [changed, shown] = [false, false];
    const update = (collection, summary) => {
      if (JSON.stringify(collection.summary) === JSON.stringify(summary)) return;
      collection.summary = summary;
      changed = true;
      shown ||= collection === this.shown;
    };
    for (const summary of [...summaries].reverse()) {
      update(this.collection(`series:${summary.series_uid}`, "series", summary.series_id || "series without a name"), summary);
    }
    for (const collection of this.collections.values()) {
      // The series of another service at this address, or of a run log that was removed.
      if (collection.summary?.live && !listed.has(collection.key)) update(collection, { ...collection.summary, live: false });
    }
    if (changed) this.#emit("collections");
    if (shown) this.#emit("entries");
  }

  /** Sets why frames have no result: ranges in the order of frames. */
  setReasons(collection, reasons) {
    if (JSON.stringify(collection.reasons) === JSON.stringify(reasons)) return;
    collection.reasons = reasons;
    if (collection === this.shown) this.#emit("entries");
  }

  /** Adds earlier results, from the run log. */
  addEarlier(collection, results) {
    if (collection.addAll(results) && collection === this.shown) this.#emit("entries");
  }

  /** Marks that all results of the run log were fetched, and updates the views, even if there were none. */
  completed(collection) {
    if (collection.complete) return;
    collection.complete = true;
    if (collection === this.shown) this.#emit("entries");
  }

  /** Returns a result with its grids, if it is kept. */
  result(id) {
    return this.#results.get(id);
  }

  /** Keeps a result with its grids. */
  storeResult(result) {
    if (!result.gradcam?.grids) return;
    this.#results.delete(result.id);
    this.#results.set(result.id, result);
    if (this.#results.size > MAX_RESULTS) this.#results.delete(this.#results.keys().next().value);
  }

  show(collection) {
    if (this.shown === collection) return;
    this.shown = collection;
    this.#recent = [collection, ...this.#recent.filter((other) => other !== collection)];
    for (const old of this.#recent.splice(MAX_KEPT)) if (old.kind === "series") old.clear();
    this.selected = null;
    this.#emit("collections");
    this.#emit("entries");
    this.#emit("selected");
  }

  select(id) {
    if (this.selected === id) return;
    this.selected = id;
    this.#emit("selected");
  }

  /** Selects a field of view that the user chose: new results do not change the selection. */
  pick(id) {
    this.setFollow(false);
    this.select(id);
  }

  step(by) {
    const { entries } = this.shown ?? { entries: [] };
    if (!entries.length) return;
    const at = this.selected === null ? entries.length : this.shown.indexOf(this.selected);
    this.pick(entries[Math.min(entries.length - 1, Math.max(0, at + by))].id);
  }

  setFollow(follow) {
    if (this.follow === follow) return;
    this.follow = follow;
    this.#emit("follow");
  }

  /** Returns whether the shown series, of another microscope, is still receiving results. */
  #holdsView({ instrument }) {
    const { shown } = this;
    return shown?.lastResultAt && shown.instrument !== instrument && Date.now() - shown.lastResultAt < OTHER_MICROSCOPE_MS;
  }

  #evict(fresh) {
    for (const [key, collection] of this.collections) {
      if (this.collections.size <= MAX_COLLECTIONS) return;
      const stays = collection === this.shown || collection === fresh || collection.kind === "uploads";
      if (!stays) this.collections.delete(key);
    }
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }
}
