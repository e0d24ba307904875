// The frames that have no result: why, and where; their places follow from those of the others, if these form a raster.

const TOLERANCE = 0.25; // of the stage's step
const LEAST = 3;

// Why a frame has no result, in words; `unknown` until the service has said why, or while it is computed.
export const REASONS = {
  missing: "missing on the way",
  dropped: "dropped for newer ones",
  refused: "refused",
  failed: "failed",
  unknown: "without a result",
};

/**
 * The frames of a series without a result here, up to the last that was planned.
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
    if (open && summary?.state !== "open") break; // what was planned and never scanned
    found.push({ frame, kind: open ? "planned" : whyOf(frame), place: whereOf?.(frame) ?? null });
  }
  return found;
}

/** The reason of a frame, for frames in their order. */
export function reasonOf(reasons) {
  let at = 0;
  return (frame) => {
    while (at < reasons.length && reasons[at].last < frame) at += 1;
    const range = reasons[at];
    return range && range.first <= frame && range.reason in REASONS ? range.reason : "unknown";
  };
}

const ends = (framed) => framed.slice(-1).map(({ frame }) => frame);

/** The place of any frame in a raster that fits all places that are known; null where none does. */
export function rasterOf(framed) {
  const known = framed.filter(({ place }) => place);
  if (known.length < LEAST) return null;
  const axes = { x: stepsOf(known, "x"), y: stepsOf(known, "y") };
  if (!axes.x || !axes.y) return null;
  for (const [fast, slow] of [["x", "y"], ["y", "x"]]) {
    const columns = axes[fast].count;
    for (const forth of [1, -1]) {
      for (const down of [1, -1]) {
        for (const serpentine of [false, true]) {
          const cell = (frame) => {
            const row = Math.floor(frame / columns);
            const column = serpentine && row % 2 ? columns - 1 - (frame % columns) : frame % columns;
            return [column, row];
          };
          const fits = ({ frame, place }) => {
            const [column, row] = cell(frame);
            return indexOf(axes[fast], place[fast], forth) === column && indexOf(axes[slow], place[slow], down) === row;
          };
          if (!known.every(fits)) continue;
          const oneRow = axes[slow].count === 1; // how long a row is, is not known yet
          return (frame) => {
            const [column, row] = cell(frame);
            if (oneRow && row) return null;
            return { [fast]: placeOf(axes[fast], column, forth), [slow]: placeOf(axes[slow], row, down) };
          };
        }
      }
    }
  }
  return null;
}

/** The even steps of the stage along an axis; null where they are not even. */
function stepsOf(known, axis) {
  const sorted = [...new Set(known.map(({ place }) => place[axis]))].sort((a, b) => a - b);
  const [low, high] = [sorted[0], sorted.at(-1)];
  const gaps = sorted.slice(1).map((value, k) => value - sorted[k]);
  const most = Math.max(0, ...gaps);
  // Differences far below the largest are the stage's jitter about one place.
  const wide = gaps.filter((gap) => gap > TOLERANCE * most).sort((a, b) => a - b);
  if (!wide.length) return { low, high, step: 0, count: 1 };
  const step = wide[Math.floor(wide.length / 2)];
  const count = Math.round((high - low) / step) + 1;
  const even = sorted.every((value) => Math.abs((value - low) / step - Math.round((value - low) / step)) < TOLERANCE);
  return even ? { low, high, step, count } : null;
}

function indexOf({ low, high, step }, value, direction) {
  return step === 0 ? 0 : Math.round((direction > 0 ? value - low : high - value) / step);
}

function placeOf({ low, high, step }, index, direction) {
  return direction > 0 ? low + index * step : high - index * step;
}
