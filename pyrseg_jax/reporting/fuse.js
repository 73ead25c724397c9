"use strict";
// Fuse a semantic and a unity pyramid in a browser. The report of a run and the demo page share this file.

/**
 * A map: classes, levels, probabilities or numbers that stand for them, row by row.
 * @typedef {{height: number, width: number, data: Uint8Array | Uint16Array | Float32Array}} Grid
 * For each position of the finest level: the level that decides it, and the index of its cell in that level.
 * @typedef {{height: number, width: number, level: Uint8Array, cell: Uint32Array}} Fused
 */

/**
 * Fuse two pyramids: at each position, the coarsest level whose cell is a unit-cell decides, or else the finest level.
 * @param {{height: number, width: number}[]} sizes of the levels, coarse → fine
 * @param {(level: number, cell: number) => boolean} isUnit whether a cell of a level above the finest is a unit-cell
 * @returns {Fused}
 */
function fuse(sizes, isUnit) {
  let { height, width } = sizes[0];
  let level = new Uint8Array(height * width);
  let cell = Uint32Array.from(level, (_, index) => index);
  let isOpen = new Uint8Array(height * width).fill(1); // where no level has decided so far
  for (let index = 1; index < sizes.length; index++) {
    const finer = sizes[index], factor = finer.height / height;
    const nextLevel = new Uint8Array(finer.height * finer.width), nextOpen = new Uint8Array(nextLevel.length);
    const nextCell = new Uint32Array(nextLevel.length);
    for (let y = 0; y < finer.height; y++) {
      for (let x = 0; x < finer.width; x++) {
        const parent = Math.floor(y / factor) * width + Math.floor(x / factor), own = y * finer.width + x;
        const goesOn = isOpen[parent] === 1 && !isUnit(index - 1, parent);
        nextOpen[own] = goesOn ? 1 : 0;
        nextLevel[own] = goesOn ? index : level[parent];
        nextCell[own] = goesOn ? own : cell[parent];
      }
    }
    ({ height, width } = finer);
    level = nextLevel; cell = nextCell; isOpen = nextOpen;
  }
  return { height, width, level, cell };
}

/** Return the class that a fused map has at each position. @param {Fused} fused @param {Grid[]} semantic @returns {Grid} */
function fusedClasses(fused, semantic) {
  const data = Uint16Array.from(fused.level, (level, index) => semantic[level].data[fused.cell[index]]);
  return { height: fused.height, width: fused.width, data };
}
