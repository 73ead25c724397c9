"use strict";
// The script of the report. It requests nothing, writes texts with textContent only, and computes no score: it fuses stored pyramids at
// another threshold. `tables.js`, `readout.js`, and in the package `reporting` `fuse.js` and `paint.js` belong to the same script; `start`,
// at the end of this file, connects everything.

/**
 * A map without loss compression, as `pyramids.pack` writes it.
 * @typedef {{height: number, width: number, bytes: number, data: string}} Packed
 * @typedef {{name: string, confusion: number[][], strides: number[], semantic: Packed[], unity: Packed[], labels: Packed,
 *   truth: Packed}} PackedExample
 * @typedef {{name: string, confusion: number[][], strides: number[], semantic: Grid[], unity: Grid[], labels: Grid,
 *   truth: Grid}} Example
 * What is drawn over a photograph; `pair` is a confusion whose pixels are marked, or null.
 * @typedef {{figure: HTMLElement, example: Example, position: number, layer: string, pair: [number, number] | null,
 *   shown: {classes: Grid, level: Grid | null}}} View
 */

/** @type {{thresholds: number[], own: number, names: string[], colors: number[][], levelColors: number[][], void: number,
 *   pairs: Object<string, number>, examples: PackedExample[]}} */
const values = JSON.parse(document.getElementById("values").textContent);
const MARK = [255, 0, 200];

/** Decompress a map. @param {Packed} packed @returns {Promise<Grid>} */
async function unpack(packed) {
  const compressed = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const plain = new Uint8Array(await new Response(stream).arrayBuffer());
  let data = plain;
  if (packed.bytes === 2) { // little-endian on every machine
    data = new Uint16Array(plain.length / 2);
    for (let i = 0; i < data.length; i++) data[i] = plain[2 * i] + 256 * plain[2 * i + 1];
  }
  return { height: packed.height, width: packed.width, data };
}

/** @param {PackedExample} packed @returns {Promise<Example>} */
async function unpackExample(packed) {
  const [semantic, unity, rest] = await Promise.all([
    Promise.all(packed.semantic.map(unpack)), Promise.all(packed.unity.map(unpack)),
    Promise.all([packed.labels, packed.truth].map(unpack))]);
  return { name: packed.name, confusion: packed.confusion, strides: packed.strides, semantic, unity,
    labels: rest[0], truth: rest[1] };
}

/**
 * Fuse the pyramids of an example. A cell is a unit-cell at a position of the slider if its stored number is above that position.
 * @param {Example} example @param {number} position @returns {{classes: Grid, level: Grid}}
 */
function fuseExample(example, position) {
  const fused = fuse(example.semantic, (level, cell) => example.unity[level].data[cell] > position);
  return { classes: fusedClasses(fused, example.semantic),
    level: { height: fused.height, width: fused.width, data: fused.level } };
}

/** @param {View} view */
function draw(view) {
  const { figure, example } = view, canvas = figure.querySelector("canvas");
  const fused = fuseExample(example, view.position);
  const isRight = (/** @type {number} */ i) =>
    example.truth.data[i] === values.void || example.truth.data[i] === example.labels.data[i];
  const layers = {
    fused: () => paint(canvas, fused.classes, (value) => values.colors[value]),
    level: () => paint(canvas, fused.level, (value) => values.levelColors[value]),
    labels: () => paint(canvas, example.labels, (value) => values.colors[value] || null),
    truth: () => paint(canvas, example.truth, (value) => values.colors[value] || null),
    errors: () => paint(canvas, example.labels, (_, i) => isRight(i) ? null : MARK),
    pair: () => paint(canvas, example.labels,
      (value, i) => example.truth.data[i] === view.pair[0] && value === view.pair[1] ? MARK : null),
    none: () => paint(canvas, example.labels, () => null),
  };
  const layer = view.pair ? "pair" : view.layer;
  layers[layer]();
  view.shown = { fused: { classes: fused.classes, level: fused.level }, level: { classes: fused.classes, level: fused.level },
    truth: { classes: example.truth, level: null } }[layer] || { classes: example.labels, level: null };
  describe(view, fused.level, layer);
}

/** Say which levels decide, and which classes are shown. @param {View} view @param {Grid} level @param {string} layer */
function describe(view, level, layer) {
  const numbers = new Array(view.example.semantic.length).fill(0);
  for (const index of level.data) numbers[index] += 1;
  const shares = numbers.map((found, index) =>
    `level ${index + 1} (stride ${view.example.strides[index]}) ${(100 * found / level.data.length).toFixed(1)} %`);
  const whole = `decided by: ${shares.join(", ")}`;
  view.figure.querySelector(".shares").textContent = numbers.length > 1 ? whole : "";
  const list = view.figure.querySelector(".classes-shown");
  list.replaceChildren();
  /** @type {[string, number[]][]} */
  let entries = [];
  if (layer === "level") entries = numbers.map((_, index) => [`level ${index + 1}`, values.levelColors[index]]);
  else if (layer === "errors") entries = [["wrong pixels", MARK]];
  else if (layer === "pair") {
    entries = [[`${values.names[view.pair[0]]} predicted as ${values.names[view.pair[1]]}`, MARK]];
  } else if (layer !== "none") {
    const found = new Map();
    for (const value of view.shown.classes.data) found.set(value, (found.get(value) || 0) + 1);
    entries = [...found].filter(([value]) => value < values.names.length).sort((a, b) => b[1] - a[1]).slice(0, 12)
      .map(([value]) => [values.names[value], values.colors[value]]);
  }
  for (const [name, color] of entries) {
    const item = document.createElement("li");
    item.append(swatch(color), ` ${name}`);
    list.append(item);
  }
  view.figure.querySelector("canvas").setAttribute("aria-label",
    `Map over the photograph: ${entries.map(([name]) => name).join(", ")}. ${numbers.length > 1 ? whole : ""}`);
}

/** Show a position on a slider. @param {ParentNode} place @param {number} position */
function showPosition(place, position) {
  const slider = /** @type {HTMLInputElement} */ (place.querySelector(".tau-slider"));
  const label = String(Number(values.thresholds[position].toFixed(6)));
  slider.max = String(values.thresholds.length - 1);
  slider.value = String(position);
  slider.setAttribute("aria-valuetext", label);
  place.querySelector(".tau-value").textContent = label;
}

/** Connect the controls of one example, or of all. @param {Element} place @param {() => View[]} viewsOf */
function connect(place, viewsOf) {
  const slider = /** @type {HTMLInputElement} */ (place.querySelector(".tau-slider"));
  const layer = /** @type {HTMLSelectElement} */ (place.querySelector(".layer"));
  const opacity = /** @type {HTMLInputElement} */ (place.querySelector(".opacity"));
  showPosition(place, values.own);
  slider.addEventListener("input", () => {
    showPosition(place, Number(slider.value));
    for (const view of viewsOf()) {
      view.position = Number(slider.value);
      showPosition(view.figure, view.position);
      if (view.layer !== "level") chooseLayer(view, "fused");
      draw(view);
    }
  });
  layer.addEventListener("change", () => {
    for (const view of viewsOf()) { chooseLayer(view, layer.value); draw(view); }
  });
  opacity.addEventListener("input", () => {
    for (const view of viewsOf()) {
      /** @type {HTMLInputElement} */ (view.figure.querySelector(".opacity")).value = opacity.value;
      view.figure.querySelector("canvas").style.opacity = String(Number(opacity.value) / 100);
    }
  });
}

/** @param {View} view @param {string} layer */
function chooseLayer(view, layer) {
  view.layer = layer;
  view.pair = null;
  view.figure.classList.remove("is-sought");
  /** @type {HTMLSelectElement} */ (view.figure.querySelector(".layer")).value = layer;
}

/** Say what lies under the pointer. @param {View} view */
function connectPointer(view) {
  const stage = view.figure.querySelector(".stage"), output = view.figure.querySelector(".pixel");
  stage.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const box = stage.getBoundingClientRect();
    const at = (/** @type {Grid} */ grid) => {
      const x = Math.min(grid.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * grid.width)));
      const y = Math.min(grid.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * grid.height)));
      return grid.data[y * grid.width + x];
    };
    const name = (/** @type {number} */ value) => values.names[value] || "void";
    const level = view.shown.level ? `, decided by level ${at(view.shown.level) + 1}` : "";
    output.textContent = `shown ${name(at(view.shown.classes))}${level}; ground truth ${name(at(view.example.truth))}`;
  });
  stage.addEventListener("pointerleave", () => { output.textContent = ""; });
}

async function start() {
  document.body.classList.add("has-script");
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(/** @type {HTMLTableElement} */ (table));
  for (const figure of document.querySelectorAll("figure.has-readout")) connectReadout(/** @type {HTMLElement} */ (figure));
  /** @type {View[]} */
  const views = [];
  for (const [index, packed] of values.examples.entries()) {
    const example = await unpackExample(packed);
    values.examples[index] = null; // the packed maps are not needed any more
    const figure = document.getElementById(`example-${index}`);
    /** @type {View} */
    const view = { figure, example, position: values.own, layer: "fused", pair: null, shown: null };
    figure.querySelector("canvas").style.opacity = "0.65";
    connect(figure, () => [view]);
    connectPointer(view);
    draw(view);
    views.push(view);
  }
  const all = document.querySelector("#examples > .controls");
  if (all && views.length) connect(all, () => views);
  connectMatrix(views);
  document.body.dataset.ready = "true";
}

start();
