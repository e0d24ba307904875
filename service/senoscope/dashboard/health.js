// The state of the connection to the service, of the service itself, and of the stream.

import { access, json, Problem, readiness, Unreachable } from "./api.js";
import { $, setFacts, fitCanvas, setText, onResize, throttled } from "./dom.js";
import { clock, lasting, milliseconds, plural } from "./format.js";

const POLL_MS = 1000;
const SILENT_S = 3.5; // a publisher sends a heartbeat each second
const LONG_S = 30;
const LATENCIES = 120;

const sum = (counts) => Object.values(counts ?? {}).reduce((total, n) => total + n, 0);

/** Dispatches `available` when the service answers for the first time, or again after an interruption. */
export class Health extends EventTarget {
  #live;
  #timer = 0;
  #lostAt = null;
  #stream = null;
  #ready = null;
  #received = { count: null, at: 0 };
  #rates = [];
  #timings = []; // of the latest results
  #deadlineMs = null; // null: no result is late
  #draw = throttled(() => this.#drawLatencies(), 250);
  #waitsForKey = false;

  constructor(live) {
    super();
    this.#live = live;
    live.addEventListener("closed", () => this.#update());
    live.addEventListener("opened", () => this.#update());
    onResize($("spark"), this.#draw);
  }

  start() {
    clearTimeout(this.#timer);
    this.#poll();
  }

  /** While a key is missing, a refused request is not a lost connection. */
  set waitsForKey(waits) {
    this.#waitsForKey = waits;
    this.#update();
  }

  latency({ timing_ms: timing, deadline_met: met }) {
    this.#timings.push(timing);
    if (this.#timings.length > LATENCIES) this.#timings.shift();
    const rest = timing.total - timing.queue - timing.compute;
    const parts = `waiting ${milliseconds(timing.queue)}, networks ${milliseconds(timing.compute)}, other ${milliseconds(rest)}`;
    const judged = typeof met === "boolean" && this.#deadlineMs !== null ? ` of ${milliseconds(this.#deadlineMs)}: ${met ? "in time" : "late"}` : "";
    setText($("latency"), `${milliseconds(timing.total)}${judged} (${parts})`);
    this.#draw();
  }

  async #poll() {
    try {
      const stream = await json("v1/stream", { timeoutMs: 3000 });
      // Only with the first answer, and with the first one after an interruption.
      const available = this.#stream === null || this.#lostAt !== null;
      this.#stream = stream;
      this.#lostAt = null;
      if (this.#deadlineMs !== stream.live.deadline_ms) {
        this.#deadlineMs = stream.live.deadline_ms;
        this.dispatchEvent(new CustomEvent("deadline", { detail: this.#deadlineMs }));
      }
      this.#countMessages(stream);
      this.#ready = await readiness();
      if (available) this.dispatchEvent(new Event("available"));
    } catch (error) {
      await this.#failed(error);
    }
    this.#update();
    this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  async #failed(error) {
    if (error instanceof Problem && error.status === 401) return; // `failed` requested a key
    if (error instanceof Problem && error.status === 403) return access.requestKey(error.message); // with scope read
    this.#lostAt ??= Date.now();
    this.#ready = null;
    if (error instanceof Problem) {
      try {
        this.#ready = await readiness();
      } catch { /* the connection was lost between the two requests */ }
    } else if (!(error instanceof Unreachable)) throw error;
  }

  #countMessages({ receiver, live }) {
    const received = receiver?.messages.image ?? 0;
    if (received !== this.#received.count) this.#received = { count: received, at: Date.now() };
    this.#rates.push([performance.now(), live.classified]);
    if (this.#rates.length > 11) this.#rates.shift();
  }

  #rate() {
    if (this.#rates.length < 2) return 0;
    const [[from, before], [to, now]] = [this.#rates[0], this.#rates.at(-1)];
    return Math.max(0, ((now - before) * 1000) / (to - from));
  }

  #update() {
    const connection = this.#connection();
    pill($("connection"), connection.state, connection.short);
    $("stream").hidden = this.#stream === null;
    const stream = this.#lostAt === null && this.#stream ? streamState(this.#stream, this.#received.at) : { state: "", short: "Stream unknown" };
    pill($("stream"), stream.state, stream.short);
    const degraded = this.#ready?.status === "degraded" ? `Fields of view are classified, but: ${this.#ready.problems.join("; ")}` : null;
    const message = connection.long ?? degraded ?? stream.long ?? null;
    const banner = $("banner");
    banner.hidden = message === null;
    banner.dataset.state = connection.long ? connection.state : "warn";
    setText(banner.firstElementChild, message ?? "");
    if (this.#stream && this.#lostAt === null) setFacts($("health"), this.#facts(this.#stream));
  }

  #connection() {
    if (this.#waitsForKey) return { state: "warn", short: "Waiting for a key" };
    if (this.#lostAt !== null) {
      const since = `since ${clock(this.#lostAt)} (${lasting((Date.now() - this.#lostAt) / 1000)})`;
      if (this.#ready?.status === "not_ready") {
        return { state: "warn", short: "Not ready", long: `The service is not ready, ${since}: ${this.#ready.reason}. This page continues when it is ready.` };
      }
      return { state: "bad", short: "Connection lost", long: `The connection to the service is lost, ${since}. This page tries again every second, and then fetches the results that it missed.` };
    }
    if (this.#stream === null) return { state: "warn", short: "Connecting" };
    if (!this.#live.open) return { state: "warn", short: "Live results interrupted" };
    return { state: "good", short: "Connected" };
  }

  #facts({ receiver, watch, live, batch, decisions, run_log: log, archive }) {
    const series = receiver?.series[0];
    const rows = [
      ["rate", `${this.#rate().toFixed(1)} FOV/s`],
      ["waiting", `${live.waiting} of ${live.capacity}`],
      ["received", series?.received ?? 0],
      ["not received", series?.missing ?? 0],
      ["dropped", live.dropped],
      ["refused", sum(receiver?.rejected)],
      ["late", this.#deadlineMs === null ? "no deadline" : live.late],
      ["posted", batch.classified],
    ];
    if (receiver?.last_rejection) rows.push(["last refusal", receiver.last_rejection, "wide"]);
    if (receiver) rows.push(["stream", receiver.endpoint, "wide"]);
    if (watch) rows.push(["watched folder", watchText(watch), "wide"]);
    rows.push(["run log", log ? log.state : "turned off: the history is lost when this page is closed", "wide"]);
    if (archive) rows.push(["archive", archive.problem ?? "pixels are saved", "wide"]);
    if (decisions) rows.push(["rules", `${plural(sum(decisions.decided), "decision")}${decisions.dry_run ? ", dry run" : ""}`, "wide"]);
    return rows.map(([term, text, wide]) => [term, String(text), wide]);
  }

  /** Draws the latency of the latest results, with the deadline as a line. */
  #drawLatencies() {
    const canvas = $("spark");
    const surface = fitCanvas(canvas);
    if (!surface) return;
    const { context, width, height } = surface;
    const deadlineMs = this.#deadlineMs;
    const maxMs = Math.max((deadlineMs ?? 0) * 1.25, 1, ...this.#timings.map(({ total }) => total));
    const y = (ms) => height - 2 - (ms / maxMs) * (height - 4);
    const step = width / LATENCIES;
    this.#timings.forEach(({ total: ms }, k) => {
      context.fillStyle = deadlineMs !== null && ms > deadlineMs ? "#ffc857" : "#8fd0ff";
      context.fillRect(k * step, y(ms), Math.max(1, step - 1), height - y(ms));
    });
    const against = deadlineMs === null ? "" : ` against the deadline of ${deadlineMs} ms`;
    canvas.setAttribute("aria-label", `Latency of the latest ${this.#timings.length} results${against}`);
    if (deadlineMs === null) return;
    context.fillStyle = "#fff";
    context.fillRect(0, y(deadlineMs), width, 1);
  }
}

function watchText({ folder, waiting, classified, failed, problem }) {
  return problem ?? `${folder}: ${plural(classified, "file")} classified, ${waiting} waiting${failed.length ? `, not ${failed.at(-1).file}: ${failed.at(-1).text}` : ""}`;
}

function streamState({ receiver, watch }, lastImageAt) {
  if (!receiver) return { state: "", short: watch ? `Watching ${watch.folder}` : "No stream" };
  const { endpoint, connected, refused, silent_s: silent } = receiver;
  if (refused) {
    return { state: "bad", short: "Stream refused", long: `The publisher at ${endpoint} refuses the key of this service (CURVE). Check --stream-server-key and the publisher's allowed keys.` };
  }
  const series = receiver.series[0];
  const open = series?.state === "open";
  if (!connected) {
    const long = open ? `The microscope disconnected: there is no publisher at ${endpoint} any more, and its series has not ended. The service reconnects automatically.` : `No microscope: there is no publisher at ${endpoint}. The service connects automatically when there is one.`;
    return { state: open ? "bad" : "warn", short: "No microscope", long };
  }
  if (silent === null) return { state: "warn", short: "Nothing received yet" };
  if (open && silent > SILENT_S) {
    return { state: "bad", short: `Silent for ${lasting(silent)}`, long: `The stream is silent: nothing was received for ${lasting(silent)}, after frame ${series.last_frame ?? "–"} of ${series.series_id}. Check whether the scan is running and the network is up.` };
  }
  const quiet = (Date.now() - lastImageAt) / 1000;
  if (open && quiet > LONG_S) return { state: "warn", short: `No new FOV for ${lasting(quiet)}` };
  if (open) return { state: "good", short: "Scanning" };
  return { state: "", short: series ? `Idle: last series ${series.state}` : "Idle" };
}

function pill(element, state, text) {
  element.dataset.state = state;
  element.title = text;
  setText(element, text);
}
