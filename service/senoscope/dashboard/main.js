// The dashboard: the parts of the page, and the events between them.
//
//   live socket --results--> store --selected--> picture --shown--> verdict
//   run log ------(sync)------^  |--entries--> stage map, timeline, history

import { access, Problem, Unreachable } from "./api.js";
import { inferno, ramp } from "./colormaps.js";
import { $, setOptions, oneLine, setText, throttled, toast } from "./dom.js";
import { Drop } from "./drop.js";
import { date, plural } from "./format.js";
import { Health } from "./health.js";
import { History } from "./history.js";
import { listen } from "./keyboard.js";
import { Live } from "./live.js";
import { showLogin } from "./login.js";
import { Model } from "./model.js";
import { Picture } from "./picture.js";
import { StageMap } from "./stagemap.js";
import { isUnreliable, Store } from "./store.js";
import { Sync } from "./sync.js";
import { Timeline } from "./timeline.js";
import { inTwoDigits, Verdict } from "./verdict.js";

const REFRESH_MS = 3000;
const RETRY_MS = 1000;

const store = new Store();
const live = new Live();
const model = new Model();
const sync = new Sync(store);
const health = new Health(live);
const picture = new Picture(store);
const verdict = new Verdict();
const parts = [picture, verdict, new StageMap(store), new Timeline(store)];
const retitle = throttled(() => {
  const { result } = picture;
  document.title = result ? `${result.flags.some(isUnreliable) ? "⚠ " : ""}${inTwoDigits(result.probability)} ${result.label} – Senoscope` : "Senoscope";
}, 1000);
const history = new History(store, (id) => {
  store.pick(id);
  location.hash = "#live";
});
new Drop(store, live, () => model.current?.manifest.input.channels.map(({ name }) => name) ?? []);

// New results.
live.addEventListener("result", ({ detail: result }) => {
  if (result.source.kind === "stream") health.latency(result);
  model.checkResult(result);
  store.addResult(result);
});
live.addEventListener("opened", () => attempt(() => sync.catchUp()));

// The service answers for the first time, or again.
health.addEventListener("available", () => attempt(arrive));

health.addEventListener("deadline", ({ detail }) => {
  store.deadlineMs = detail;
});

model.addEventListener("changed", ({ detail }) => {
  for (const part of [...parts, history]) part.model = detail;
});

picture.addEventListener("shown", ({ detail: result }) => {
  verdict.show(result);
  retitle();
});
picture.addEventListener("failed", ({ detail: error }) => {
  if (error instanceof Problem && error.status !== 401) toast(`This field of view cannot be shown: ${error.message}`, { state: "warn" });
});
// For measurements: a field of view is on the screen.
picture.addEventListener("painted", ({ detail }) => document.dispatchEvent(new CustomEvent("senoscope:painted", { detail })));

store.addEventListener("collections", () => {
  const all = [...store.collections.values()].reverse();
  setOptions($("series"), all.length ? all.map((one) => [one.key, titleOf(one)]) : [["", "No series yet"]]);
  if (store.shown) $("series").value = store.shown.key;
});
store.addEventListener("entries", throttled(() => setText($("progress"), store.shown ? progressOf(store.shown) : "–"), 100));
store.addEventListener("entries", () => {
  if (store.shown && !store.shown.complete) attempt(() => sync.fetchAll(store.shown));
});
store.addEventListener("follow", () => {
  $("follow").setAttribute("aria-pressed", store.follow);
  setText($("follow"), store.follow ? "Pause" : "Follow");
});

$("series").addEventListener("change", () => {
  store.setFollow(false);
  const chosen = store.collections.get($("series").value);
  if (chosen) attempt(() => open(chosen));
});
$("follow").addEventListener("click", toggleFollow);
$("help").addEventListener("click", () => $("keys").showModal());
for (const button of document.querySelectorAll("dialog [data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
addEventListener("hashchange", view);

listen({
  " ": toggleFollow,
  ArrowLeft: () => store.step(-1),
  ArrowRight: () => store.step(1),
  0: () => picture.channel("all"),
  ...Object.fromEntries(Array.from({ length: 9 }, (_, c) => [String(c + 1), () => picture.channel(String(c))])),
  g: () => picture.toggleMap(),
  n: () => picture.nextNetwork(),
  "+": () => picture.fade(10),
  "-": () => picture.fade(-10),
  z: () => picture.zoom.by(1),
  x: () => picture.zoom.by(-1),
  f: () => picture.zoom.fit(),
  l: () => (location.hash = "#live"),
  h: () => (location.hash = "#history"),
  m: () => (location.hash = "#model"),
  "?": () => $("keys").showModal(),
});

access.requestKey = (reason) => {
  health.waitsForKey = true;
  live.stop();
  showLogin(reason, () => {
    health.waitsForKey = false;
    live.renew();
    health.start();
  });
};

for (const id of ["starter", "banner"]) oneLine($(id));
ramp($("camramp"), inferno);
view();
health.start();
setInterval(() => {
  if (!$("login").open && arrived()) attempt(() => sync.refresh());
}, REFRESH_MS);
// Loading is repeated until model and series are there.
let arriving = 0;
setInterval(() => {
  if (!$("login").open && !arrived() && !arriving) attempt(arrive);
}, RETRY_MS);

function arrived() {
  return model.current && store.shown;
}

async function arrive() {
  arriving += 1;
  try {
    if (live.open) attempt(() => sync.catchUp());
    else if (!live.alive) live.renew();
    await model.refresh();
    if (!store.shown) await begin();
    picture.retry();
  } finally {
    arriving -= 1;
  }
}

/** Opens the newest series at its last field of view; with the next frame the page follows the scan. */
async function begin() {
  const [newest] = await sync.refresh();
  if (store.shown) return; // the user chose a series meanwhile
  const collection = newest && store.collections.get(`series:${newest.series_uid}`);
  const uploads = store.collection("uploads", "uploads", "Posted stacks");
  setText($("empty"), "No field of view yet. Start a scan, or drop a TIFF stack on this page.");
  await open(collection ?? uploads);
}

async function open(collection) {
  store.show(collection);
  try {
    await sync.fetchAll(collection);
  } finally { // without a run log, the results that this page received are shown
    const last = collection.entries.at(-1);
    if (last && store.shown === collection && (store.follow || store.selected === null)) store.select(last.id);
  }
}

function toggleFollow() {
  store.setFollow(!store.follow);
  if (!store.follow) return;
  const all = [...store.collections.values()].filter(({ kind }) => kind === "series");
  const scanning = all.filter(({ summary }) => summary?.live && summary.state === "open");
  const lastMade = ({ entries }) => entries.at(-1)?.madeAt ?? 0;
  const newest = (scanning.length ? scanning : all).reduce((a, b) => (lastMade(b) >= lastMade(a) ? b : a), all[0]);
  if (newest) attempt(() => open(newest));
}

function view() {
  const wanted = location.hash.slice(1);
  const chosen = ["live", "history", "model"].includes(wanted) ? wanted : "live";
  for (const id of ["live", "history", "model"]) $(id).hidden = id !== chosen;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === chosen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (chosen === "history") history.refresh();
  if (chosen === "model" && model.current) attempt(() => model.refresh());
}

/** Reports errors to the user, except those of an unavailable service: such actions are repeated later. */
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    if (error instanceof Unreachable) return;
    if (error instanceof Problem && (error.status === 401 || error.code === "not_ready" || error.code === "log_unavailable")) return;
    if (!(error instanceof Problem)) throw error;
    toast(error.message, { state: "bad" });
  }
}

function titleOf({ kind, title, summary }) {
  if (kind !== "series") return title;
  const state = summary?.live && summary.state === "open" ? "scanning" : summary?.updated_at ? date(Date.parse(summary.updated_at)) : (summary?.state ?? "");
  return state ? `${title} (${state})` : title;
}

function progressOf({ entries, summary, kind }) {
  const of = summary?.planned_frames ? ` of ${summary.planned_frames}` : "";
  const parts = [`${entries.length}${of} ${entries.length === 1 && !of ? "field of view" : "fields of view"}`];
  const positive = model.current?.manifest.ensemble.classes[1];
  if (positive) parts.push(`${entries.filter(({ label }) => label === positive).length} ${positive}`);
  if (kind === "series" && summary?.missing) parts.push(`${plural(summary.missing, "frame")} not received`);
  return parts.join(" · ");
}
