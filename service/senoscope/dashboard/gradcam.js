// Grad-CAM maps in the pixels of the field of view, from the networks' grids; as in `senoscope.engine.gradcam`.

/** Returns, for each of `size` pixels, the two cells that it lies between, and the weight of the second. */
function weights(cells, size) {
  const low = new Int32Array(size);
  const high = new Int32Array(size);
  const share = new Float32Array(size);
  for (let k = 0; k < size; k += 1) {
    const at = Math.min(Math.max(((k + 0.5) * cells) / size - 0.5, 0), cells - 1);
    low[k] = Math.floor(at);
    high[k] = Math.min(low[k] + 1, cells - 1);
    share[k] = at - low[k];
  }
  return { low, high, share };
}

/** Returns a grid [h][w] upsampled bilinearly, and its maximum. */
function upsampled(grid, height, width) {
  const map = new Float32Array(height * width);
  const [rows, columns] = [weights(grid.length, height), weights(grid[0].length, width)];
  const line = new Float32Array(grid[0].length);
  let peak = 0;
  for (let y = 0, at = 0; y < height; y += 1) {
    const [upper, lower, down] = [grid[rows.low[y]], grid[rows.high[y]], rows.share[y]];
    for (let c = 0; c < line.length; c += 1) line[c] = upper[c] + (lower[c] - upper[c]) * down;
    for (let x = 0; x < width; x += 1, at += 1) {
      const left = line[columns.low[x]];
      const value = left + (line[columns.high[x]] - left) * columns.share[x];
      map[at] = value;
      if (value > peak) peak = value;
    }
  }
  return { map, peak };
}

/** Returns one network's map: its grid upsampled and divided by its maximum; zero stays zero. */
export function networkMap(grid, height, width) {
  const { map, peak } = upsampled(grid, height, width);
  if (peak > 0) for (let at = 0; at < map.length; at += 1) map[at] = Math.min(1, map[at] / peak);
  return map;
}

/** Returns the ensemble's map: the mean of the networks' maps, each weighted with its network's probability. */
export function ensembleMap(result, height, width) {
  const total = new Float32Array(height * width);
  const grids = Object.entries(result.gradcam.grids);
  for (const [name, grid] of grids) {
    const { map, peak } = upsampled(grid, height, width);
    if (peak === 0) continue;
    const weight = result.networks[name] / grids.length / peak;
    for (let at = 0; at < total.length; at += 1) total[at] += weight * map[at];
  }
  for (let at = 0; at < total.length; at += 1) if (total[at] > 1) total[at] = 1; // by rounding
  return total;
}
