"use strict";
// The demo page: it connects the controls, hands pictures to the worker, and shows what comes back.

/** @type {(id: string) => any} */
const element = (id) => document.getElementById(id);
const state = {
  /** @type {any} */ model: null, // the content of demo.json
  /** @type {Worker} */ worker: null,
  /** @type {Map<number, {resolve: Function, reject: Function}>} */ calls: new Map(),
  /** @type {number[]} */ thresholds: [],
  /** @type {View[]} */ views: [],
  /** @type {View} */ view: null,
  /** @type {Shown | null} */ shown: null,
  /** @type {HTMLVideoElement | null} */ video: null,
  name: "picture", // of the file, without its ending
  turn: 0, // counts pictures, so that a late result of an earlier one is not shown
  /** @type {[number, number] | null} */ cursor: null, // row and column of the pixel that is read
  wanted: -1, // position of the slider that waits until the worker is free
};

/** @param {string} text @param {boolean} isProblem */
function say(text, isProblem = false) {
  element("status").textContent = text;
  element("status").classList.toggle("is-problem", isProblem);
}

/** Ask the worker. @param {string} kind @param {any} given @param {Transferable[]} transfer @returns {Promise<any>} */
function ask(kind, given, transfer = []) {
  const number = ask.count++;
  return new Promise((resolve, reject) => {
    state.calls.set(number, { resolve, reject });
    state.worker.postMessage({ number, kind, given }, transfer);
  });
}
ask.count = 0;

function startWorker() {
  state.worker = new Worker("worker.js");
  state.worker.onmessage = ({ data: { number, found, problem } }) => {
    const call = state.calls.get(number);
    state.calls.delete(number);
    if (problem === undefined) call.resolve(found); else call.reject(new Error(problem));
  };
  state.worker.onerror = (event) => {
    event.preventDefault();
    const error = new Error(event.message || "its script could not be loaded");
    for (const call of state.calls.values()) call.reject(error);
    state.calls.clear();
  };
}

// ── Pictures ──

/** Segment a picture and show it. @param {Picture} picture @returns {Promise<void>} */
async function segment(picture) {
  const turn = ++state.turn, { height, width } = picture, rgba = pixelsOf(picture);
  if (!state.video) say(`Segmenting ${width} × ${height} pixels…`);
  const threshold = state.thresholds[Number(element("tau").value)];
  const shown = await ask("segment", { rgba: rgba.buffer, height, width, threshold }, [rgba.buffer]);
  if (turn !== state.turn) return;
  drawPicture(element("photograph"), picture);
  show(shown);
  if (!state.video) say(`${width} × ${height} pixels.`);
  element("time").textContent = `Network: ${shown.seconds.toFixed(2)} s in this browser.`;
}

/** Open a file that the user has chosen or dropped, or a sample. @param {Blob} blob @param {string} name */
async function open(blob, name) {
  stopLive();
  let picture;
  try {
    picture = await decode(blob);
  } catch {
    say(`${name} is not a picture that this browser can read: choose a JPEG, PNG or WebP file.`, true);
    return;
  }
  state.name = name.replace(/\.[^.]*$/, "");
  try {
    await segment(picture);
  } catch (error) {
    say(`${name} could not be segmented (${error.message}). Reload the page, or choose a smaller picture.`, true);
  }
}

/** @param {{name: string, file: string}} sample */
async function openSample(sample) {
  const response = await fetch(sample.file);
  if (response.ok) await open(await response.blob(), sample.file);
  else say(`The sample ${sample.file} is missing in the folder of this page: run pyrseg demo again.`, true);
}

// ── The camera ──

function stopLive() {
  if (!state.video) return;
  stopCamera(state.video);
  state.video = null;
  element("camera").textContent = "Camera";
  say("The camera is off. This is its last picture.");
}

async function toggleCamera() {
  if (state.video) { stopLive(); return; }
  const button = element("camera");
  button.disabled = true;
  let video;
  try {
    video = await startCamera();
    state.video = video;
  } catch (error) {
    say(error.message, true);
    return;
  } finally {
    button.disabled = false;
  }
  button.textContent = "Stop the camera";
  state.name = "camera";
  say("The camera is on. Stop it to keep a picture.");
  try {
    while (state.video === video) {
      const source = await createImageBitmap(video);
      await segment({ source, height: source.height, width: source.width });
      source.close();
    }
  } catch (error) {
    if (state.video !== video) return; // it was stopped in the middle of a picture
    stopLive();
    say(`The pictures of the camera could not be segmented (${error.message}). Reload the page.`, true);
  }
}

// ── What is shown ──

/** @param {Shown} shown */
function show(shown) {
  const isNewSize = !state.shown || state.shown.height !== shown.height || state.shown.width !== shown.width;
  state.shown = shown;
  element("result").hidden = false;
  const widest = `calc(70vh * ${shown.width / shown.height})`; // the whole picture fits on the screen
  element("stage").style.maxWidth = widest;
  element("result").style.setProperty("--picture", widest);
  if (isNewSize) state.cursor = null;
  for (const view of state.views) {
    const canvas = element(`view-${view.id}`).querySelector("canvas");
    const grid = view.id === "labels" ? fusedThumbnail(shown) : gridOf(view, shown);
    paint(canvas, grid, colorsOf(view, state.model));
    canvas.style.aspectRatio = `${shown.width} / ${shown.height}`;
  }
  draw();
  document.body.dataset.results = String(1 + Number(document.body.dataset.results || 0));
}

/** Return a small map of the classes of pixels. @param {Shown} shown @returns {Grid} */
function fusedThumbnail(shown) {
  const { height, width } = shown.level, data = new Uint16Array(height * width);
  for (let i = 0; i < data.length; i++) {
    const y = Math.floor((2 * Math.floor(i / width) + 1) * shown.height / (2 * height));
    data[i] = shown.labels[y * shown.width + Math.floor((2 * (i % width) + 1) * shown.width / (2 * width))];
  }
  return { height, width, data };
}

function draw() {
  const { view, shown, model } = state;
  paint(element("map"), gridOf(view, shown), colorsOf(view, model));
  showLegend(element("legend"), view, shown, model);
  element("legend-title").textContent = { class: "Classes", level: "Levels", unity: "Unity" }[view.kind];
  element("explanation").textContent = view.explanation;
  for (const other of state.views) element(`view-${other.id}`).setAttribute("aria-pressed", String(other === view));
  readPixel();
}

function readPixel() {
  const { cursor, shown, view, model } = state, cross = element("cross");
  cross.hidden = cursor === null;
  if (cursor === null) {
    element("readout").textContent = "Point at the picture, tap it, or move over it with the arrow keys.";
    return;
  }
  cross.style.top = `${100 * (cursor[0] + 0.5) / shown.height}%`;
  cross.style.left = `${100 * (cursor[1] + 0.5) / shown.width}%`;
  element("readout").textContent = describePixel(view, shown, cursor[0], cursor[1], model);
}

/** @param {number} y @param {number} x */
function moveCursor(y, x) {
  if (!state.shown) return;
  const { height, width } = state.shown;
  state.cursor = [Math.min(Math.max(y, 0), height - 1), Math.min(Math.max(x, 0), width - 1)];
  readPixel();
}

// ── Controls ──

function showThreshold() {
  const slider = element("tau"), text = String(Number(state.thresholds[Number(slider.value)].toFixed(6)));
  element("tau-value").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  element("tau-reset").disabled = state.thresholds[Number(slider.value)] === state.model.threshold;
}

/** Fuse again at the slider's position; while the worker is busy, only the last position is remembered. */
async function fuseAgain() {
  showThreshold();
  if (!state.shown) return;
  const isBusy = state.wanted >= 0;
  state.wanted = Number(element("tau").value);
  if (isBusy) return;
  try {
    for (let position = -1; position !== state.wanted;) {
      position = state.wanted;
      const turn = state.turn, shown = await ask("fuse", state.thresholds[position]);
      if (turn === state.turn) show(shown);
    }
  } catch (error) {
    say(`The pyramids could not be fused (${error.message}). Reload the page.`, true);
  } finally {
    state.wanted = -1;
  }
}

async function download() {
  let found;
  try {
    found = await ask("labels");
  } catch (error) {
    say(`The label map could not be computed (${error.message}). Reload the page, or choose a smaller picture.`, true);
    return;
  }
  const { height, width, labels } = found;
  const values = Uint16Array.from(labels, (label) => state.model.values[label]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encodePng(values, height, width, state.model.isWide));
  link.download = `${state.name}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function connectStage() {
  const stage = element("stage");
  const point = (/** @type {PointerEvent} */ event) => {
    const box = stage.getBoundingClientRect(), { height, width } = state.shown;
    moveCursor(Math.floor((event.clientY - box.top) / box.height * height), Math.floor((event.clientX - box.left) / box.width * width));
  };
  stage.addEventListener("pointermove", point);
  stage.addEventListener("pointerdown", point);
  stage.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const { height, width } = state.shown, [y, x] = state.cursor || [height >> 1, width >> 1];
    const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(height, width) / 100)); // with Shift, pixel by pixel
    const moves = { ArrowLeft: [0, -far], ArrowRight: [0, far], ArrowUp: [-far, 0], ArrowDown: [far, 0] };
    if (event.key === "Escape") { state.cursor = null; readPixel(); return; }
    if (!(event.key in moves)) return;
    event.preventDefault();
    moveCursor(y + moves[event.key][0], x + moves[event.key][1]);
  });
}

function connectFiles() {
  const file = element("file");
  file.addEventListener("change", () => { if (file.files.length) open(file.files[0], file.files[0].name); file.value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("is-target"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("is-target"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-target");
    const dropped = event.dataTransfer.files[0];
    if (dropped) open(dropped, dropped.name);
    else say("That was not a file: drop a photograph.", true);
  });
}

function connectControls() {
  const slider = element("tau"), own = state.model.threshold;
  state.thresholds = [...new Set([own, ...Array.from({ length: 101 }, (_, i) => i / 100)])].sort((a, b) => a - b);
  slider.min = "0"; slider.max = String(state.thresholds.length - 1); slider.step = "1";
  slider.value = String(state.thresholds.indexOf(own));
  showThreshold();
  slider.addEventListener("input", fuseAgain);
  element("tau-reset").addEventListener("click", () => { slider.value = String(state.thresholds.indexOf(own)); fuseAgain(); });
  const opacity = element("opacity"), setOpacity = () => { element("map").style.opacity = String(Number(opacity.value) / 100); };
  opacity.addEventListener("input", setOpacity);
  setOpacity();
  element("camera").addEventListener("click", toggleCamera);
  element("download").addEventListener("click", download);
}

function addViews() {
  state.views = viewsOf(state.model.strides);
  [state.view] = state.views;
  for (const view of state.views) {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    button.type = "button"; button.className = "view"; button.id = `view-${view.id}`;
    button.append(canvas, view.name);
    button.addEventListener("click", () => { state.view = view; if (state.shown) draw(); });
    element("views").append(button);
  }
  const hasLevels = state.views.length > 1;
  for (const id of ["tau-control", "tau-reset"]) element(id).hidden = !hasLevels;
  document.querySelector(".layers").toggleAttribute("hidden", !hasLevels);
}

function addSamples() {
  for (const sample of state.model.samples) {
    const button = document.createElement("button");
    button.type = "button"; button.className = "button"; button.textContent = sample.name;
    button.addEventListener("click", () => openSample(sample));
    element("samples").append(button);
  }
}

async function start() {
  if (location.protocol === "file:") {
    say("Browsers do not let a page from the disk load its network. Run “python -m http.server” in the folder of this page, and open "
      + "http://localhost:8000 in the browser.", true);
    return;
  }
  try {
    state.model = await (await fetch("demo.json")).json();
    startWorker();
    addViews(); addSamples(); connectFiles(); connectStage(); connectControls();
    say(`Loading the network, ${state.model.networks[0].megabytes.toFixed(1)} MB…`);
    await ask("prepare", state.model);
  } catch (error) {
    say(`The network could not be loaded (${error.message}). Reload the page; if that does not help, run pyrseg demo again.`, true);
    return;
  }
  if (!state.turn) say("Choose a photograph, drop one here, or use the camera.");
  document.body.dataset.ready = "true";
  if (!state.turn && state.model.samples.length) openSample(state.model.samples[0]);
}

start();
