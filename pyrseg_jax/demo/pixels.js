"use strict";
// From fused cells to the pixels of a photograph: probabilities are interpolated bilinearly with half-pixel centers, and the most
// likely class wins, the first of equal ones. Python's `upsample_argmax` does the same.

/**
 * Return the class probabilities at each position of the finest level.
 * @param {Fused} fused @param {Float32Array[]} probabilities of each level, (h, w, C) row by row @param {number} numClasses
 * @returns {Float32Array}
 */
function fusedProbabilities(fused, probabilities, numClasses) {
  const result = new Float32Array(fused.level.length * numClasses);
  for (let i = 0; i < fused.level.length; i++) {
    const first = fused.cell[i] * numClasses;
    result.set(probabilities[fused.level[i]].subarray(first, first + numClasses), i * numClasses);
  }
  return result;
}

/** Return the most likely class of each cell. @param {Float32Array} probabilities @param {number} numClasses */
function mostLikely(probabilities, numClasses) {
  const result = new Uint16Array(probabilities.length / numClasses);
  for (let i = 0; i < result.length; i++) {
    const first = i * numClasses;
    let best = 0;
    for (let c = 1; c < numClasses; c++) if (probabilities[first + c] > probabilities[first + best]) best = c;
    result[i] = best;
  }
  return result;
}

/**
 * Find the two positions of a map around pixel `i`, and the weight of the second.
 * @param {number} i @param {number} size of the map @param {number} newSize of the photograph, along one side
 * @returns {[number, number, number]}
 */
function around(i, size, newSize) {
  const at = Math.min(Math.max((i + 0.5) * size / newSize - 0.5, 0), size - 1), first = Math.floor(at);
  return [first, Math.min(first + 1, size - 1), at - first];
}

/**
 * Return the class of each pixel.
 * @param {Float32Array} probabilities (h, w, C) @param {{height: number, width: number}} grid h and w @param {number} numClasses
 * @param {number} height @param {number} width of the photograph
 * @returns {Uint16Array}
 */
function classesOfPixels(probabilities, grid, numClasses, height, width) {
  const labels = new Uint16Array(height * width), row = new Float32Array(grid.width * numClasses);
  const columns = Array.from({ length: width }, (_, x) => around(x, grid.width, width));
  for (let y = 0; y < height; y++) {
    const [above, below, down] = around(y, grid.height, height);
    const upper = above * row.length, lower = below * row.length;
    for (let i = 0; i < row.length; i++) row[i] = probabilities[upper + i] * (1 - down) + probabilities[lower + i] * down;
    for (let x = 0; x < width; x++) {
      const [left, right, across] = columns[x], a = left * numClasses, b = right * numClasses;
      let best = 0, highest = -1;
      for (let c = 0; c < numClasses; c++) {
        const value = Math.fround(row[a + c] * (1 - across) + row[b + c] * across);
        if (value > highest) { highest = value; best = c; }
      }
      labels[y * width + x] = best;
    }
  }
  return labels;
}

/**
 * Return the probability of each class at one pixel.
 * @param {Float32Array} probabilities (h, w, C) @param {{height: number, width: number}} grid h and w @param {number} numClasses
 * @param {number} y @param {number} x of the pixel @param {number} height @param {number} width of the photograph
 * @returns {Float32Array}
 */
function probabilitiesAt(probabilities, grid, numClasses, y, x, height, width) {
  const [above, below, down] = around(y, grid.height, height), [left, right, across] = around(x, grid.width, width);
  const at = (/** @type {number} */ row, /** @type {number} */ column, /** @type {number} */ c) =>
    probabilities[(row * grid.width + column) * numClasses + c];
  return Float32Array.from({ length: numClasses }, (_, c) =>
    (at(above, left, c) * (1 - down) + at(below, left, c) * down) * (1 - across)
    + (at(above, right, c) * (1 - down) + at(below, right, c) * down) * across);
}

/** Return the index of the cell of a map in which the center of a pixel lies. */
function cellAt(grid, y, x, height, width) {
  return Math.floor((2 * y + 1) * grid.height / (2 * height)) * grid.width
    + Math.floor((2 * x + 1) * grid.width / (2 * width));
}
