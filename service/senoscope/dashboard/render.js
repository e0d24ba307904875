// Pictures from pixels and maps, as arrays, without elements of the page.

import { inferno } from "./colormaps.js";

// Orange and blue can be distinguished with colour blindness; transmission, behind both, is grey.
const COMPOSITE = [[255, 140, 20], [40, 150, 255], [85, 85, 85]];

const SAMPLED = 2048;

/** Returns each channel's 0.5th and 99.8th percentile, from a sample of its pixels, as limits for display. */
export function contrast(pixels) {
  return pixels.channels.map((channel) => {
    const step = Math.max(1, Math.floor(channel.length / SAMPLED));
    const sample = Float32Array.from({ length: Math.floor(channel.length / step) }, (_, k) => channel[k * step]).sort();
    const at = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
    return [at(0.005), at(0.998)];
  });
}

/** Returns a channel scaled from a range to 0..255. */
export function scaled(channel, [low, high]) {
  const out = new Uint8ClampedArray(channel.length);
  const factor = 255 / Math.max(high - low, 1e-12);
  for (let k = 0; k < out.length; k += 1) out[k] = Math.floor((channel[k] - low) * factor);
  return out;
}

/** Returns [r, g, b, 255] of a grey picture. */
export function grey(values) {
  const rgba = new Uint32Array(values.length);
  for (let k = 0; k < values.length; k += 1) rgba[k] = 0xff000000 | (values[k] * 0x010101);
  return new Uint8ClampedArray(rgba.buffer);
}

/** Returns every `step`-th pixel of a picture or map, in both directions. */
export function thinned(values, height, width, step) {
  const [rows, columns] = [Math.ceil(height / step), Math.ceil(width / step)];
  const out = new values.constructor(rows * columns);
  for (let y = 0, at = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1, at += 1) out[at] = values[y * step * width + x * step];
  }
  return { values: out, height: rows, width: columns };
}

/** Returns a picture of all channels, each in a different colour. */
export function composite(channels) {
  const rgba = new Uint8ClampedArray(4 * channels[0].length).fill(255);
  for (let k = 0; k < channels[0].length; k += 1) {
    let [r, g, b] = [0, 0, 0];
    channels.forEach((channel, c) => {
      const colour = COMPOSITE[Math.min(c, COMPOSITE.length - 1)];
      const value = channel[k] / 255;
      r += value * colour[0];
      g += value * colour[1];
      b += value * colour[2];
    });
    rgba[4 * k] = r;
    rgba[4 * k + 1] = g;
    rgba[4 * k + 2] = b;
  }
  return rgba;
}

/**
 * Draws a map into a picture, in place.
 * @param {"overlay" | "intensity" | "map"} style as of gradcam.png
 */
export function paint(rgba, map, style, opacity) {
  const [weighted, overlaid] = [style === "intensity", style === "overlay"];
  for (let k = 0, at = 0; k < map.length; k += 1, at += 4) {
    const value = map[k];
    const intensity = weighted ? (rgba[at] + rgba[at + 1] + rgba[at + 2]) / 765 : 1;
    const from = 3 * ((value * intensity * 255 + 0.5) | 0); // the values of a map are in 0..1
    const alpha = overlaid ? opacity * value : 1;
    const rest = 1 - alpha;
    rgba[at] = rgba[at] * rest + inferno[from] * alpha;
    rgba[at + 1] = rgba[at + 1] * rest + inferno[from + 1] * alpha;
    rgba[at + 2] = rgba[at + 2] * rest + inferno[from + 2] * alpha;
  }
  return rgba;
}
