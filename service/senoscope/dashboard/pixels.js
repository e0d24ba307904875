// The raw pixels of a field of view, as long as the service keeps them in memory.

import { bytes, Problem } from "./api.js";

const MAX_CACHED = 16; // of half a megabyte each
const TYPES = { "|u1": Uint8Array, "<u2": Uint16Array, "<f4": Float32Array };

const cache = new Map();

/**
 * @returns {Promise<{channels: TypedArray[], height: number, width: number} | null>} null if they are no
 *   longer in the service's memory
 */
export async function pixelsOf(id) {
  const cached = cache.get(id);
  if (cached) return cached;
  let found;
  try {
    // Cached here: the browser's cache would write half a megabyte for each to the disk.
    found = parse(await bytes(`v1/results/${id}/pixels.npy`, { cache: "no-store" }));
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
  cache.set(id, found);
  if (cache.size > MAX_CACHED) cache.delete(cache.keys().next().value);
  return found;
}

/** Reads NPY of shape [C, H, W], in format 1.0, as the service writes it. */
export function parse(buffer) {
  const begin = 10;
  const length = new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, begin, length));
  const descr = /'descr':\s*'([^']+)'/.exec(header)?.[1];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1].split(",").filter((n) => n.trim()).map(Number);
  const Type = TYPES[descr];
  if (!Type || shape?.length !== 3 || /'fortran_order':\s*True/.test(header)) {
    throw new Error(`the service sent pixels that this page cannot read: ${header}`);
  }
  const [channels, height, width] = shape;
  // NPY aligns its data to 64 bytes, so no copy is needed.
  const all = new Type(buffer, begin + length, channels * height * width);
  const size = height * width;
  return { height, width, channels: Array.from({ length: channels }, (_, c) => all.subarray(c * size, (c + 1) * size)) };
}
