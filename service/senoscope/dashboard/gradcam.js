// From the networks' grids to maps in the pixels of the field of view; as `senoscope.engine.gradcam` does it.

/** For each of `size` pixels: the two cells it lies between, and the share of the second. */
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

/** One network's map: its grid [h][w] upsampled bilinearly, divided by its own maximum; zero stays zero. */
export function networkMap(grid, height, width) {
  const map = new Float32Array(height * width);
  const [rows, columns] = [weights(grid.length, height), weights(grid[0].length, width)];
  let peak = 0;
  for (let y = 0; y < height; y += 1) {
    const [upper, lower, down] = [grid[rows.low[y]], grid[rows.high[y]], rows.share[y]];
    const line = upper.map((value, c) => value + (lower[c] - value) * down);
    for (let x = 0, at = y * width; x < width; x += 1, at += 1) {
      const left = line[columns.low[x]];
      const value = left + (line[columns.high[x]] - left) * columns.share[x];
      map[at] = value;
      if (value > peak) peak = value;
    }
  }
  if (peak > 0) for (let at = 0; at < map.length; at += 1) map[at] /= peak;
  return map;
}

/** The ensemble's map: the mean of the networks' maps, each weighted with its network's probability. */
export function ensembleMap(result, height, width) {
  const total = new Float32Array(height * width);
  const grids = Object.entries(result.gradcam.grids);
  for (const [name, grid] of grids) {
    const weight = result.networks[name] / grids.length;
    const map = networkMap(grid, height, width);
    for (let at = 0; at < total.length; at += 1) total[at] += weight * map[at];
  }
  return total;
}
