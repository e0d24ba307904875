// What the page knows: series and stacks with their fields of view, which is shown, which is selected.

import { deadlineHolds, madeAt } from "./format.js";

// Of one collection; the oldest go. The run log holds all of them.
const MOST_ENTRIES = 50_000;
// Full results with their Grad-CAM grids, 10 kB each.
const JUDGED = 120;
const MOST_RESULTS = 96;
// More than are asked for at once (sync.js), or those that are let go would come back again and again.
const MOST_COLLECTIONS = 80;
// Series that keep their fields of view here; others fetch them again when they are shown again.
const MOST_KEPT = 3;
// So long nothing must have come of one microscope before the page follows another.
const OTHER_MICROSCOPE_MS = 10_000;

/** The key of the collection that a result belongs to. */
const keyOf = ({ source }) => (source.series_uid ? `series:${source.series_uid}` : "uploads");

// Flags that say nothing about the pixels: of the ensemble as a whole, and of the run log.
const HARMLESS = new Set(["not_for_science", "not_logged"]);

/** Whether a flag says that the result of this field of view is not to be relied on. */
export const casts = ({ code }) => !HARMLESS.has(code);

/** What lists, the timeline and the map need of a result. */
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
    computeMs: timing.compute,
    missed: source.kind === "stream" && !result.deadline_met, // a posted stack has no deadline
    // The starter's flag is on every result and told once for all of them.
    reliable: flags.every((flag) => !casts(flag)),
    flags: flags.filter(({ code }) => code !== "not_for_science").map(({ code, channel }) => (channel ? `${code}:${channel}` : code)),
    madeAt: madeAt(result.id),
  };
}

/** Fields of view that belong together, in the order in which they were classified. */
class Collection {
  /** @param {"series" | "uploads" | "stack"} kind */
  constructor(key, kind, title) {
    Object.assign(this, { key, kind, title, entries: [], complete: false, summary: null, reasons: [] });
    this.known = new Map();
  }

  /** Whether what the log has more than this page cannot be held here. */
  get full() {
    return this.entries.length >= MOST_ENTRIES;
  }

  get uid() {
    return this.kind === "series" ? this.key.slice("series:".length) : null;
  }

  /** False if it was known already. */
  add(result) {
    if (this.known.has(result.id)) return false;
    const entry = entryOf(result);
    let at = this.entries.length;
    while (at > 0 && this.entries[at - 1].id > entry.id) at -= 1;
    this.entries.splice(at, 0, entry);
    this.known.set(entry.id, entry);
    if (this.entries.length > MOST_ENTRIES) this.known.delete(this.entries.shift().id);
    return true;
  }

  /** As `add`, for many: the oldest of a long series come last. */
  addAll(results) {
    const fresh = results.filter(({ id }) => !this.known.has(id)).map(entryOf);
    for (const entry of fresh) this.known.set(entry.id, entry);
    if (!fresh.length) return 0;
    this.entries = this.entries.concat(fresh).sort((a, b) => (a.id < b.id ? -1 : 1));
    for (const gone of this.entries.splice(0, this.entries.length - MOST_ENTRIES)) this.known.delete(gone.id);
    return fresh.length;
  }

  /** Whether its frames had a deadline that they could keep; judged by the latest. */
  deadlineHolds(deadlineMs) {
    return this.kind === "series" && deadlineMs !== null && deadlineHolds(this.entries.slice(-JUDGED).map(({ computeMs }) => computeMs), deadlineMs);
  }

  /** Lets the fields of view go, to be fetched again. */
  forget() {
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

/** Tells of changes by the events `collections`, `entries`, `selected` and `follow`. */
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
      this.#letGo(found);
      this.#tell("collections");
    } else if (title && found.title !== title) {
      found.title = title;
      this.#tell("collections");
    }
    return found;
  }

  /** A result as it comes live, or out of a stack that was dropped here. */
  take(result, into = null) {
    const { source } = result;
    const collection = into ?? this.collection(
      keyOf(result), source.series_uid ? "series" : "uploads", source.series_uid ? source.series_id : "Posted stacks",
    );
    this.#remember(result);
    if (!collection.add(result)) return;
    collection.instrument = source.instrument;
    collection.heardAt = Date.now();
    if (this.follow && source.kind === "stream" && !this.#keeps(collection)) {
      if (this.shown !== collection) this.show(collection);
      this.select(result.id);
    }
    if (collection === this.shown) this.#tell("entries");
  }

  /** What the service says of its series, newest first; those that it knows no longer scan no longer. */
  describe(summaries) {
    const told = new Set(summaries.map(({ series_uid: uid }) => `series:${uid}`));
    let [changed, shown] = [false, false];
    const note = (collection, summary) => {
      if (JSON.stringify(collection.summary) === JSON.stringify(summary)) return;
      collection.summary = summary;
      changed = true;
      shown ||= collection === this.shown;
    };
    for (const summary of [...summaries].reverse()) {
      note(this.collection(`series:${summary.series_uid}`, "series", summary.series_id || "series without a name"), summary);
    }
    for (const collection of this.collections.values()) {
      // Of another service at this address, or of a run log that is gone.
      if (collection.summary?.live && !told.has(collection.key)) note(collection, { ...collection.summary, live: false });
    }
    if (changed) this.#tell("collections");
    if (shown) this.#tell("entries");
  }

  /** Why frames have no result: ranges in the order of frames. */
  explain(collection, reasons) {
    if (JSON.stringify(collection.reasons) === JSON.stringify(reasons)) return;
    collection.reasons = reasons;
    if (collection === this.shown) this.#tell("entries");
  }

  /** Earlier results, out of the run log. */
  fill(collection, results) {
    if (collection.addAll(results) && collection === this.shown) this.#tell("entries");
  }

  /** Nothing earlier is left in the run log; the views that show it say so, even where it holds nothing. */
  completed(collection) {
    if (collection.complete) return;
    collection.complete = true;
    if (collection === this.shown) this.#tell("entries");
  }

  /** A result with its grids, if it is remembered. */
  result(id) {
    return this.#results.get(id);
  }

  remember(result) {
    this.#remember(result);
  }

  show(collection) {
    if (this.shown === collection) return;
    this.shown = collection;
    this.#recent = [collection, ...this.#recent.filter((other) => other !== collection)];
    for (const old of this.#recent.splice(MOST_KEPT)) if (old.kind === "series") old.forget();
    this.selected = null;
    this.#tell("collections");
    this.#tell("entries");
    this.#tell("selected");
  }

  select(id) {
    if (this.selected === id) return;
    this.selected = id;
    this.#tell("selected");
  }

  /** Selects a field of view that somebody chose: what comes next must not take it away. */
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
    this.#tell("follow");
  }

  /** Whether the series of one microscope goes on while another microscope scans too. */
  #keeps({ instrument }) {
    const { shown } = this;
    return shown?.heardAt && shown.instrument !== instrument && Date.now() - shown.heardAt < OTHER_MICROSCOPE_MS;
  }

  #remember(result) {
    if (!result.gradcam?.grids) return;
    this.#results.delete(result.id);
    this.#results.set(result.id, result);
    if (this.#results.size > MOST_RESULTS) this.#results.delete(this.#results.keys().next().value);
  }

  #letGo(fresh) {
    for (const [key, collection] of this.collections) {
      if (this.collections.size <= MOST_COLLECTIONS) return;
      const stays = collection === this.shown || collection === fresh || collection.kind === "uploads";
      if (!stays) this.collections.delete(key);
    }
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}
