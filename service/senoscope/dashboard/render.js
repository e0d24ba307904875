// From pixels and maps to pictures: no elements, only arrays.

import { inferno, level } from "./colormaps.js";

// Colour-blind people tell orange from blue; transmission, behind both, is grey.
const COMPOSITE = [[255, 140, 20], [40, 150, 255], [85, 85, 85]];

/** Each channel's 0.5th and 99.8th percentile, which the eye likes, from every 7th pixel. */
export function contrast(pixels) {
  return pixels.channels.map((channel) => {
    const sample = channel.filter((_, k) => k % 7 === 0).sort();
    const at = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
    return [at(0.005), at(0.998)];
  });
}

/** A channel in 0..255 of a range. */
export function scaled(channel, [low, high]) {
  const out = new Uint8ClampedArray(channel.length);
  const factor = 255 / Math.max(high - low, 1e-12);
  for (let k = 0; k < out.length; k += 1) out[k] = Math.floor((channel[k] - low) * factor);
  return out;
}

/** [r, g, b, 255] of a grey picture. */
export function grey(values) {
  const rgba = new Uint8ClampedArray(4 * values.length);
  for (let k = 0, at = 0; k < values.length; k += 1) {
    const value = values[k];
    rgba[at++] = value;
    rgba[at++] = value;
    rgba[at++] = value;
    rgba[at++] = 255;
  }
  return rgba;
}

/** All channels at once, each in a colour of its own. */
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
 * Puts a map into a picture, in place.
 * @param {"overlay" | "intensity" | "map"} style as of gradcam.png
 */
export function paint(rgba, map, style, opacity) {
  for (let k = 0; k < map.length; k += 1) {
    const at = 4 * k;
    // The same luminance for grey and for colour: that of a grey picture is its grey.
    const intensity = style === "intensity" ? (rgba[at] + rgba[at + 1] + rgba[at + 2]) / 765 : 1;
    const from = level(map[k] * intensity);
    const alpha = style === "overlay" ? opacity * map[k] : 1;
    for (let c = 0; c < 3; c += 1) rgba[at + c] = rgba[at + c] * (1 - alpha) + inferno[from + c] * alpha;
  }
  return rgba;
}
