// Numbers and times as text.

/** Returns when a result was made, in milliseconds since the epoch, from its id, a UUID of version 7. */
export const madeAt = (id) => parseInt(id.slice(0, 8) + id.slice(9, 13), 16);

const TIME = new Intl.DateTimeFormat([], { timeStyle: "medium", hourCycle: "h23" });
const DATE = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

export const clock = (ms) => TIME.format(ms);
export const date = (ms) => DATE.format(ms);
export const percent = (fraction) => `${Math.round(fraction * 100)} %`;

/** Returns date and time in sortable form, with 24 hours: 2026-11-30 09:19:26. */
export function stamp(ms) {
  const at = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  const day = `${String(at.getFullYear()).padStart(4, "0")}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Parses a text in the form of `stamp`, with or without time and seconds, as local time; NaN if invalid. */
export function stamped(text) {
  const found = /^\s*(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?)?\s*$/.exec(text);
  if (!found) return NaN;
  const [year, month, day, hour, minute, second] = found.slice(1).map((part) => Number(part ?? 0));
  const at = new Date(year, month - 1, day, hour, minute, second);
  // Refuses dates such as 31 February.
  return at.getMonth() === month - 1 && at.getDate() === day && hour < 24 && minute < 60 && second < 60 ? at.getTime() : NaN;
}

/** Returns a duration as text: 7 s, 3 min, 2 h. */
export function lasting(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function milliseconds(ms) {
  if (ms >= 10_000) return `${Math.round(ms / 1000)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export const plural = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export const fovs = (n) => plural(n, "field of view", "fields of view");

/** Returns a detector value as text, rounded to five digits. */
export const count = (value) => String(Number(value.toPrecision(5)));
