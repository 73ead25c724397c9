"use strict";
// Resize a photograph to the size of the network exactly as `data/resample.py` does with OpenCV: a canvas smooths otherwise, and
// labels at the edges of objects would differ. A smaller picture averages over the area of each new pixel; a larger one, and one that
// is stretched along one side only, is bilinear with half-pixel centers.

const COEFFICIENT = 2048; // OpenCV interpolates bytes with weights of 11 bits

/** Round to the nearest integer, halves to the even one. @param {number} value */
function roundHalfToEven(value) {
  const up = Math.floor(value + 0.5);
  return up - value === 0.5 && up % 2 === 1 ? up - 1 : up;
}

/**
 * Resize an image, without its alpha channel.
 * @param {ArrayLike<number>} rgba bytes, row by row
 * @param {number} height @param {number} width of the image
 * @param {number} newHeight @param {number} newWidth
 * @returns {Uint8Array} RGB bytes of the new size
 */
function resizeImage(rgba, height, width, newHeight, newWidth) {
  if (height === newHeight && width === newWidth) {
    const same = new Uint8Array(3 * height * width);
    for (let i = 0, j = 0; j < same.length; i += 4, j += 3) {
      same[j] = rgba[i]; same[j + 1] = rgba[i + 1]; same[j + 2] = rgba[i + 2];
    }
    return same;
  }
  const isShrunk = newHeight * newWidth < height * width;
  const vertical = height / newHeight, horizontal = width / newWidth;
  if (isShrunk && vertical >= 1 && horizontal >= 1) {
    const isWhole = Number.isInteger(vertical) && Number.isInteger(horizontal);
    return isWhole ? averageBlocks(rgba, width, newHeight, newWidth, vertical, horizontal)
      : averageAreas(rgba, height, width, newHeight, newWidth);
  }
  return interpolate(rgba, height, width, newHeight, newWidth, isShrunk);
}

/** Average blocks of whole pixels. @returns {Uint8Array} */
function averageBlocks(rgba, width, newHeight, newWidth, blockHeight, blockWidth) {
  const result = new Uint8Array(3 * newHeight * newWidth), share = Math.fround(1 / (blockHeight * blockWidth));
  const isTwoByTwo = blockHeight === 2 && blockWidth === 2; // OpenCV rounds halves up there
  for (let y = 0, out = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      let red = 0, green = 0, blue = 0;
      for (let i = 0; i < blockHeight; i++) {
        let at = 4 * ((y * blockHeight + i) * width + x * blockWidth);
        for (let j = 0; j < blockWidth; j++, at += 4) { red += rgba[at]; green += rgba[at + 1]; blue += rgba[at + 2]; }
      }
      for (const sum of [red, green, blue]) {
        result[out++] = isTwoByTwo ? (sum + 2) >> 2 : roundHalfToEven(Math.fround(sum * share));
      }
    }
  }
  return result;
}

/**
 * List which old pixels each new one covers, and the share of each.
 * @param {number} size @param {number} newSize @returns {[number, number][][]} for each new pixel: [old pixel, share]
 */
function coveredPixels(size, newSize) {
  const scale = 1 / (newSize / size), result = []; // as OpenCV rounds it
  for (let i = 0; i < newSize; i++) {
    const start = i * scale, end = start + scale, length = Math.min(scale, size - start), covered = [];
    const last = Math.min(Math.floor(end), size - 1), first = Math.min(Math.ceil(start), last);
    if (first - start > 1e-3) covered.push([first - 1, Math.fround((first - start) / length)]);
    for (let j = first; j < last; j++) covered.push([j, Math.fround(1 / length)]);
    if (end - last > 1e-3) covered.push([last, Math.fround(Math.min(end - last, 1, length) / length)]);
    result.push(covered);
  }
  return result;
}

/** Average over the area of each new pixel. @returns {Uint8Array} */
function averageAreas(rgba, height, width, newHeight, newWidth) {
  const rows = coveredPixels(height, newHeight), columns = coveredPixels(width, newWidth);
  const result = new Uint8Array(3 * newHeight * newWidth);
  const row = new Float32Array(3 * newWidth), sum = new Float32Array(3 * newWidth);
  rows.forEach((covered, y) => {
    sum.fill(0);
    for (const [from, share] of covered) {
      row.fill(0);
      columns.forEach((pixels, x) => {
        for (const [column, weight] of pixels) {
          const at = 4 * (from * width + column);
          for (let c = 0; c < 3; c++) row[3 * x + c] += Math.fround(rgba[at + c] * weight);
        }
      });
      for (let i = 0; i < sum.length; i++) sum[i] += Math.fround(row[i] * share);
    }
    for (let i = 0; i < sum.length; i++) result[y * sum.length + i] = Math.min(255, roundHalfToEven(sum[i]));
  });
  return result;
}

/**
 * Find the two old pixels around each new one, and the weight of the second in 1 / 2048.
 * @param {boolean} isShrunk whether the whole picture becomes smaller; OpenCV then places the centers by the covered area
 * @param {boolean} isVertical whether the pixels are rows: beyond the edge, OpenCV mixes the last row with itself, and rounds that,
 *   but takes the last column as it is
 */
function neighbors(size, newSize, isShrunk, isVertical) {
  const inverse = newSize / size, scale = 1 / inverse; // both as OpenCV rounds them
  const first = new Int32Array(newSize), second = new Int32Array(newSize);
  const weight = new Int32Array(newSize);
  for (let i = 0; i < newSize; i++) {
    let at, share;
    if (isShrunk) {
      at = Math.floor(i * scale);
      share = Math.fround(i + 1 - (at + 1) * inverse);
      share = share <= 0 ? 0 : share - Math.floor(share);
    } else {
      const center = Math.fround((i + 0.5) * scale - 0.5);
      at = Math.floor(center);
      share = Math.fround(center - at);
    }
    if (!isVertical && (at < 0 || at >= size - 1)) share = 0;
    first[i] = Math.min(Math.max(at, 0), size - 1); second[i] = Math.min(Math.max(at + 1, 0), size - 1);
    weight[i] = roundHalfToEven(Math.fround(share * COEFFICIENT));
  }
  return { first, second, weight };
}

/** Interpolate bilinearly. @returns {Uint8Array} */
function interpolate(rgba, height, width, newHeight, newWidth, isShrunk) {
  const rows = neighbors(height, newHeight, isShrunk, true), columns = neighbors(width, newWidth, isShrunk, false);
  const result = new Uint8Array(3 * newHeight * newWidth);
  for (let y = 0, out = 0; y < newHeight; y++) {
    const above = 4 * rows.first[y] * width, below = 4 * rows.second[y] * width, down = rows.weight[y];
    for (let x = 0; x < newWidth; x++) {
      const left = 4 * columns.first[x], right = 4 * columns.second[x], across = columns.weight[x];
      for (let c = 0; c < 3; c++) {
        const upper = rgba[above + left + c] * (COEFFICIENT - across) + rgba[above + right + c] * across;
        const lower = rgba[below + left + c] * (COEFFICIENT - across) + rgba[below + right + c] * across;
        // The steps and shifts of OpenCV, which round like this.
        result[out++] = ((((COEFFICIENT - down) * (upper >> 4)) >> 16) + ((down * (lower >> 4)) >> 16) + 2) >> 2;
      }
    }
  }
  return result;
}
