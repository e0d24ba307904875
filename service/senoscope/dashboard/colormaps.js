// Perceptually uniform colour maps, readable with colour blindness, as 256 times [r, g, b].

import { maps } from "./opencv_colormaps.js"; // made by the service, so that its pictures have the same

export const viridis = Uint8ClampedArray.from(maps.viridis);
export const inferno = Uint8ClampedArray.from(maps.inferno);
/** For uncertainty: from dark to light without a hue, so that it is not mistaken for a probability. */
export const grey = Uint8ClampedArray.from({ length: 768 }, (_, k) => 40 + Math.round((Math.floor(k / 3) * 215) / 255));

/** Returns the index in a table of a value in 0..1. */
export const level = (value) => 3 * Math.round(Math.min(Math.max(value, 0), 1) * 255);

/** Returns the CSS colour of a value in 0..1. */
export function css(colours, value) {
  const at = level(value);
  return `rgb(${colours[at]} ${colours[at + 1]} ${colours[at + 2]})`;
}

/** Draws a table from left to right. */
export function ramp(canvas, colours) {
  const { width } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, 1);
  for (let x = 0; x < width; x += 1) {
    const at = level(x / (width - 1));
    image.data.set([colours[at], colours[at + 1], colours[at + 2], 255], 4 * x);
  }
  context.putImageData(image, 0, 0);
}
