// Whether all is well: the connection to the service, the service itself, the stream behind it.

import { askForKey, json, Problem, readiness, Unreachable } from "./api.js";
import { $, facts, fitted, say, sized, throttled } from "./dom.js";
import { clock, deadlineHolds, lasting, milliseconds, plural } from "./format.js";

const EVERY_MS = 1000;
const SILENT_S = 3.5; // a publisher's heartbeat comes each second
const LONG_S = 30;
const LATENCIES = 120;

const sum = (counts) => Object.values(counts ?? {}).reduce((total, n) => total + n, 0);

/** Tells `back` when the service can be asked again after it could not. */
export class Health extends EventTarget {
  #live;
  #timer = 0;
  #lostAt = null;
  #stream = null;
  #ready = null;
  #received = { count: null, at: 0 };
  #rates = [];
  #latencies = [];
  #computed = [];
  #deadlineMs = null;
  #draw = throttled(() => this.#spark(), 250);
  #waitsForKey = false;

  constructor(live) {
    super();
    this.#live = live;
    live.addEventListener("closed", () => this.#tell());
    live.addEventListener("opened", () => this.#tell());
    sized($("spark"), this.#draw);
  }

  start() {
    clearTimeout(this.#timer);
    this.#poll();
  }

  /** While nobody has given a key there is nothing to be asked, and nothing is lost. */
  set waitsForKey(waits) {
    this.#waitsForKey = waits;
    this.#tell();
  }

  latency({ timing_ms: timing, deadline_met: met }) {
    this.#latencies.push(timing.total);
    this.#computed.push(timing.compute);
    for (const list of [this.#latencies, this.#computed]) if (list.length > LATENCIES) list.shift();
    const rest = timing.total - timing.queue - timing.compute;
    const parts = `waiting ${milliseconds(timing.queue)}, networks ${milliseconds(timing.compute)}, the rest ${milliseconds(rest)}`;
    const judged = this.#holds ? ` of ${milliseconds(this.#deadlineMs)}: ${met ? "in time" : "late"}` : "";
    say($("latency"), `${milliseconds(timing.total)}${judged} (${parts})`);
    this.#draw();
  }

  /** Whether a deadline holds: none does where the networks alone usually take longer. */
  get #holds() {
    return this.#deadlineMs !== null && deadlineHolds(this.#computed, this.#deadlineMs);
  }

  async #poll() {
    try {
      const stream = await json("v1/stream", { timeoutMs: 3000 });
      // The first answer, and any after an absence, and only then.
      const back = this.#stream === null || this.#lostAt !== null;
      this.#stream = stream;
      this.#lostAt = null;
      if (this.#deadlineMs !== stream.live.deadline_ms) {
        this.#deadlineMs = stream.live.deadline_ms;
        this.dispatchEvent(new CustomEvent("deadline", { detail: this.#deadlineMs }));
      }
      this.#count(stream);
      this.#ready = await readiness();
      if (back) this.dispatchEvent(new Event("back"));
    } catch (error) {
      await this.#failed(error);
    }
    this.#tell();
    this.#timer = setTimeout(() => this.#poll(), EVERY_MS);
  }

  async #failed(error) {
    if (error instanceof Problem && error.status === 401) return; // whoever is there is asked for a key
    if (error instanceof Problem && error.status === 403) return askForKey(error.message); // with which to see
    this.#lostAt ??= Date.now();
    this.#ready = null;
    if (error instanceof Problem) {
      try {
        this.#ready = await readiness();
      } catch { /* gone between two questions */ }
    } else if (!(error instanceof Unreachable)) throw error;
  }

  #count({ receiver, live }) {
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

  #tell() {
    const connection = this.#connection();
    pill($("connection"), connection.state, connection.short);
    $("stream").hidden = this.#stream === null;
    const stream = this.#lostAt === null && this.#stream ? streamState(this.#stream, this.#received.at) : { state: "", short: "Stream unknown" };
    pill($("stream"), stream.state, stream.short);
    const words = connection.long ?? this.#degraded() ?? stream.long ?? null;
    const banner = $("banner");
    banner.hidden = words === null;
    banner.dataset.state = connection.long ? connection.state : "warn";
    say(banner.firstElementChild, words ?? "");
    if (this.#stream && this.#lostAt === null) facts($("health"), this.#facts(this.#stream));
  }

  #connection() {
    if (this.#waitsForKey) return { state: "warn", short: "Waiting for a key" };
    if (this.#lostAt !== null) {
      const since = `since ${clock(this.#lostAt)} (${lasting((Date.now() - this.#lostAt) / 1000)})`;
      if (this.#ready?.status === "not_ready") {
        return { state: "warn", short: "Not ready", long: `The service is not ready, ${since}: ${this.#ready.reason}. This page goes on by itself when it is.` };
      }
      return { state: "bad", short: "Connection lost", long: `The connection to the service is lost, ${since}. This page tries again every second; what is classified meanwhile is fetched then.` };
    }
    if (this.#stream === null) return { state: "warn", short: "Connecting" };
    if (!this.#live.open) return { state: "warn", short: "Live results interrupted" };
    return { state: "good", short: "Connected" };
  }

  #degraded() {
    return this.#ready?.status === "degraded" ? `Results go on, but: ${this.#ready.problems.join("; ")}` : null;
  }

  #facts({ receiver, live, batch, decisions, run_log: log, archive }) {
    const series = receiver?.series[0];
    const rows = [
      ["rate", `${this.#rate().toFixed(1)} FOV/s`],
      ["waiting", `${live.waiting} of ${live.capacity}`],
      ["received", series?.received ?? 0],
      ["missing on the way", series?.missing ?? 0],
      ["dropped here", live.dropped],
      ["refused", sum(receiver?.rejected)],
      ["late", this.#holds || !this.#computed.length ? live.late : "no deadline"],
      ["posted", batch.classified],
    ];
    if (receiver?.last_rejection) rows.push(["last refusal", receiver.last_rejection, "wide"]);
    if (receiver) rows.push(["stream", receiver.endpoint, "wide"]);
    rows.push(["run log", log ? log.state : "turned off: history ends with this page", "wide"]);
    if (archive) rows.push(["archive", archive.problem ?? "pixels are kept", "wide"]);
    if (decisions) rows.push(["rules", `${plural(sum(decisions.decided), "decision")}${decisions.dry_run ? ", dry run" : ""}`, "wide"]);
    return rows.map(([term, text, wide]) => [term, String(text), wide]);
  }

  /** Latency of the latest results, with the deadline as a line. */
  #spark() {
    const canvas = $("spark");
    const surface = fitted(canvas);
    if (!surface) return;
    const { context, width, height } = surface;
    const deadlineMs = this.#holds ? this.#deadlineMs : null;
    const most = Math.max((deadlineMs ?? 0) * 1.25, 1, ...this.#latencies);
    const y = (ms) => height - 2 - (ms / most) * (height - 4);
    const step = width / LATENCIES;
    this.#latencies.forEach((ms, k) => {
      context.fillStyle = deadlineMs !== null && ms > deadlineMs ? "#ffc857" : "#8fd0ff";
      context.fillRect(k * step, y(ms), Math.max(1, step - 1), height - y(ms));
    });
    const against = deadlineMs === null ? "" : ` against the deadline of ${deadlineMs} ms`;
    canvas.setAttribute("aria-label", `Latency of the latest ${this.#latencies.length} results${against}`);
    if (deadlineMs === null) return;
    context.fillStyle = "#fff";
    context.fillRect(0, y(deadlineMs), width, 1);
  }
}

function streamState({ receiver }, lastImageAt) {
  if (!receiver) return { state: "", short: "No stream" };
  const { endpoint, connected, refused, silent_s: silent } = receiver;
  if (refused) {
    return { state: "bad", short: "Stream refused", long: `The microscope's publisher at ${endpoint} refuses this service's key (CURVE). Compare --stream-server-key and the publisher's list of keys.` };
  }
  const series = receiver.series[0];
  const open = series?.state === "open";
  if (!connected) {
    const long = open ? `The microscope is gone: nothing publishes at ${endpoint} any more, and its series has not ended. The service connects by itself when it is back.` : `No microscope: nothing publishes at ${endpoint}. The service connects by itself when something does.`;
    return { state: open ? "bad" : "warn", short: "No microscope", long };
  }
  if (silent === null) return { state: "warn", short: "Nothing received yet" };
  if (open && silent > SILENT_S) {
    return { state: "bad", short: `Silent for ${lasting(silent)}`, long: `The stream is silent: no sign of the microscope for ${lasting(silent)}, after frame ${series.last_frame ?? "–"} of ${series.series_id}. Is the scan still running, and the network up?` };
  }
  const quiet = (Date.now() - lastImageAt) / 1000;
  if (open && quiet > LONG_S) return { state: "warn", short: `No new FOV for ${lasting(quiet)}` };
  if (open) return { state: "good", short: "Scanning" };
  return { state: "", short: series ? `Idle: last series ${series.state}` : "Idle" };
}

function pill(element, state, text) {
  element.dataset.state = state;
  element.title = text;
  say(element, text);
}
