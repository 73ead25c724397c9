"use strict";
// What the page shows of a result: maps, their small pictures, the legend, and the values of one pixel.

/**
 * A result of the worker: maps of the shown size (`labels`) and of the levels, coarse → fine.
 * @typedef {{height: number, width: number, threshold: number, seconds: number, labels: Uint16Array, probabilities: Float32Array,
 *   level: Grid, semantic: Grid[], unity: Grid[]}} Shown
 * One of the maps: its name, what its colors mean, and how it is drawn.
 * @typedef {{id: string, name: string, kind: "class" | "level" | "unity", index: number, explanation: string}} View
 */

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** List the maps of a model. @param {number[]} strides of its levels @returns {View[]} */
function viewsOf(strides) {
  /** @type {View[]} */
  const views = [{ id: "labels", name: "Segmentation", kind: "class", index: -1,
    explanation: "The class of each pixel, and its share of the picture." }];
  if (strides.length === 1) return views;
  views.push({ id: "level", name: "Level that decides", kind: "level", index: -1,
    explanation: "The level of the pyramid that decides, and its share of the picture." });
  strides.forEach((stride, index) => views.push({ id: `semantic-${index}`, name: `Level ${index + 1}: classes`, kind: "class", index,
    explanation: `What level ${index + 1} predicts for its cells of ${stride} × ${stride} pixels of the network's input.` }));
  strides.slice(0, -1).forEach((stride, index) => views.push({ id: `unity-${index}`, name: `Level ${index + 1}: unity`, kind: "unity",
    index, explanation: `The probability that a cell of ${stride} × ${stride} pixels holds a single class. It decides from τ on.` }));
  return views;
}

/** Return the map of a view. @param {View} view @param {Shown} shown @returns {Grid} */
function gridOf(view, shown) {
  if (view.kind === "level") return shown.level;
  if (view.kind === "unity") return shown.unity[view.index];
  return view.index < 0 ? { height: shown.height, width: shown.width, data: shown.labels } : shown.semantic[view.index];
}

/** Return the function from a value of the map to its color. @param {View} view */
function colorsOf(view, model) {
  if (view.kind === "level") return (/** @type {number} */ value) => model.levelColors[value];
  if (view.kind === "unity") return (/** @type {number} */ value) => model.unityColors[Math.round(255 * value)];
  return (/** @type {number} */ value) => model.colors[value];
}

/** Count how much of a map each value covers, the largest share first. @param {Grid} grid @returns {[number, number][]} */
function sharesOf(grid) {
  const counts = new Map();
  for (const value of grid.data) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([value, count]) => [value, count / grid.data.length]);
}

/** Fill the legend. @param {HTMLElement} list @param {View} view @param {Shown} shown */
function showLegend(list, view, shown, model) {
  list.replaceChildren();
  if (view.kind === "unity") {
    const item = document.createElement("li"), canvas = document.createElement("canvas");
    paint(canvas, { height: 1, width: 256, data: Float32Array.from({ length: 256 }, (_, i) => i / 255) }, colorsOf(view, model));
    item.append("0", canvas, "1");
    list.append(item);
    return;
  }
  const shares = sharesOf(gridOf(view, shown));
  if (view.kind === "level") shares.sort((a, b) => a[0] - b[0]);
  for (const [value, share] of shares) {
    const item = document.createElement("li"), name = document.createElement("span"), number = document.createElement("span");
    name.className = "name"; number.className = "share";
    name.textContent = view.kind === "level" ? `level ${value + 1} (stride ${model.strides[value]})` : model.names[value];
    number.textContent = percent(share);
    item.append(swatch(colorsOf(view, model)(value)), name, number);
    list.append(item);
  }
}

/**
 * Return the confidence of a pixel: the probability of its class, scaled by the temperature of the level if the model has some.
 * @param {Shown} shown @param {number} y @param {number} x @param {number} label @param {number} level
 */
function confidenceAt(shown, y, x, label, level, model) {
  const found = probabilitiesAt(shown.probabilities, shown.level, model.names.length, y, x, shown.height, shown.width);
  if (!model.temperatures) return found[label];
  const power = 1 / model.temperatures[Math.min(level, model.temperatures.length - 1)];
  const scaled = Array.from(found, (value) => value ** power);
  return scaled[label] / scaled.reduce((sum, value) => sum + value, 0);
}

/** Say what is known about a pixel. @param {View} view @param {Shown} shown @param {number} y @param {number} x */
function describePixel(view, shown, y, x, model) {
  const at = (/** @type {Grid} */ grid) => grid.data[cellAt(grid, y, x, shown.height, shown.width)];
  const label = shown.labels[y * shown.width + x], level = at(shown.level);
  const whole = [`${model.names[label]}, confidence ${percent(confidenceAt(shown, y, x, label, level, model))}`];
  if (model.strides.length > 1) whole.push(`decided by level ${level + 1} (stride ${model.strides[level]})`);
  if (view.kind === "unity") {
    whole.push(`this cell of level ${view.index + 1} holds a single class with probability ${at(gridOf(view, shown)).toFixed(2)}`);
  } else if (view.kind === "class" && view.index >= 0) {
    whole.push(`level ${view.index + 1} says ${model.names[at(gridOf(view, shown))]}`);
  }
  return whole.join("; ");
}
