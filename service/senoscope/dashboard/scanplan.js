// The frames without a result, with reason and place; the places are derived from those of the other frames,
// if these form a raster.

const TOLERANCE = 0.25; // of the stage's step
const MIN_PLACES = 3;

// Reasons as text; `unknown` until the service has sent the reason, or while the frame is computed.
export const REASONS = {
  missing: "not received",
  dropped: "dropped for newer frames",
  refused: "refused",
  failed: "failed",
  unknown: "without a result",
};

/**
 * Returns the frames of a series without a result, up to the last that was planned.
 * @param {{ first: number, last: number, reason: string }[]} reasons of the service, in the order of frames
 * @returns {{ frame: number, kind: string, place: { x: number, y: number } | null }[]} kind: planned, or one of REASONS
 */
export function withoutResult(entries, summary, reasons = []) {
  const framed = entries.filter(({ frame }) => frame !== undefined);
  const seen = new Set(framed.map(({ frame }) => frame));
  const last = Math.max(-1, ...ends(framed), summary?.last_frame ?? -1);
  const first = summary?.first_frame ?? framed[0]?.frame ?? 0;
  const planned = Math.min(summary?.planned_frames ?? 0, 100_000);
  const whereOf = rasterOf(framed);
  const whyOf = reasonOf(reasons);
  const found = [];
  for (let frame = first; frame < Math.max(last + 1, planned); frame += 1) {
    if (seen.has(frame)) continue;
    const open = frame > last;
    if (open && summary?.state !== "open") break; // planned, but never scanned
    found.push({ frame, kind: open ? "planned" : whyOf(frame), place: whereOf?.(frame) ?? null });
  }
  return found;
}

/** Returns a function that gives the reason of a frame; it must be called in the order of frames. */
export function reasonOf(reasons) {
  let at = 0;
  return (frame) => {
    while (at < reasons.length && reasons[at].last < frame) at += 1;
    const range = reasons[at];
    return range && range.first <= frame && range.reason in REASONS ? range.reason : "unknown";
  };
}

const ends = (framed) => framed.slice(-1).map(({ frame }) => frame);

/** Returns a function that gives the place of a frame in the raster that fits all known places, or null. */
export function rasterOf(framed) {
  const known = framed.filter(({ place }) => place);
  if (known.length < MIN_PLACES) return null;
  const axes = { x: stepsOf(known, "x"), y: stepsOf(known, "y") };
  if (!axes.x || !axes.y) return null;
  for (const [fast, slow] of [["x", "y"], ["y", "x"]]) {
    for (const forth of axes[fast]) {
      const columns = forth.count;
      for (const down of axes[slow]) {
        for (const serpentine of [false, true]) {
          const cell = (frame) => {
            const row = Math.floor(frame / columns);
            const column = serpentine && row % 2 ? columns - 1 - (frame % columns) : frame % columns;
            return [column, row];
          };
          const fits = ({ frame, place }) => {
            const [column, row] = cell(frame);
            return indexOf(forth, place[fast]) === column && indexOf(down, place[slow]) === row;
          };
          if (!known.every(fits)) continue;
          const oneRow = down.count === 1; // the length of a row is unknown yet
          return (frame) => {
            const [column, row] = cell(frame);
            if (oneRow && row) return null;
            return { [fast]: forth.from + column * forth.step, [slow]: down.from + row * down.step };
          };
        }
      }
    }
  }
  return null;
}

/** Returns the even steps of the stage along an axis, in both directions, or null if they are not even. */
function stepsOf(known, axis) {
  const sorted = [...new Set(known.map(({ place }) => place[axis]))].sort((a, b) => a - b);
  const [low, high] = [sorted[0], sorted.at(-1)];
  const gaps = sorted.slice(1).map((value, k) => value - sorted[k]);
  const widest = Math.max(0, ...gaps);
  // Differences far below the largest are jitter of the stage at one place.
  const wide = gaps.filter((gap) => gap > TOLERANCE * widest).sort((a, b) => a - b);
  if (!wide.length) return [{ from: low, step: 0, count: 1 }];
  const step = wide[Math.floor(wide.length / 2)];
  const count = Math.round((high - low) / step) + 1;
  const even = sorted.every((value) => Math.abs((value - low) / step - Math.round((value - low) / step)) < TOLERANCE);
  return even ? [{ from: low, step, count }, { from: high, step: -step, count }] : null;
}

const indexOf = ({ from, step }, value) => (step === 0 ? 0 : Math.round((value - from) / step));
