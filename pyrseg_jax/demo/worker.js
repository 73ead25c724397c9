"use strict";
// The worker of the demo page: it runs the network and fuses its pyramids, so that the page stays responsive. All that it loads lies
// in the folder of the page.
importScripts("ort.wasm.min.js", "fuse.js", "resize.js", "pixels.js");

/**
 * The network of one image size. `probabilities` and `unity` are the names of its outputs, coarse → fine.
 * @typedef {{height: number, width: number, file: string}} Network
 * What the page knows about the model; `demo/description.py` writes it.
 * @typedef {{networks: Network[], input: string, probabilities: string[], unity: string[], names: string[]}} Description
 */

const MOST_SHOWN = 1024; // pixels along the longer side of a map on the page

/** @type {Description} */
let description;
/** @type {Map<string, Promise<any>>} */
const sessions = new Map();
/**
 * The last photograph: its size, and the pyramids that the network has predicted for it.
 * @type {{height: number, width: number, sizes: {height: number, width: number}[], probabilities: Float32Array[],
 *   unity: Float32Array[], seconds: number} | null}
 */
let last = null;
/** @type {{fused: Fused, probabilities: Float32Array}} */
let current;

/** Return the network whose size is nearest in aspect ratio, then in area. @param {number} height @param {number} width */
function networkFor(height, width) {
  const misfit = (/** @type {Network} */ network) => [Math.abs(Math.log(network.height / network.width * width / height)),
    Math.abs(Math.log(network.height * network.width / (height * width)))];
  return description.networks.reduce((best, network) => {
    const [a, b] = [misfit(network), misfit(best)];
    return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]) ? network : best;
  });
}

/** Load a network once. @param {Network} network */
function sessionOf(network) {
  if (!sessions.has(network.file)) {
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const session = ort.InferenceSession.create(new URL(network.file, self.location.href).href, options);
    session.catch(() => sessions.delete(network.file)); // the next photograph tries again
    sessions.set(network.file, session);
  }
  return sessions.get(network.file);
}

/** @param {{rgba: ArrayBuffer, height: number, width: number, threshold: number}} photograph */
async function segment({ rgba, height, width, threshold }) {
  const network = networkFor(height, width), session = await sessionOf(network);
  const start = performance.now();
  const pixels = resizeImage(new Uint8Array(rgba), height, width, network.height, network.width);
  const image = new ort.Tensor("uint8", pixels, [1, network.height, network.width, 3]);
  const found = await session.run({ [description.input]: image }, [...description.probabilities, ...description.unity]);
  const probabilities = description.probabilities.map((name) => found[name]);
  last = {
    height, width,
    sizes: probabilities.map(({ dims }) => ({ height: dims[1], width: dims[2] })),
    probabilities: probabilities.map(({ data }) => data),
    unity: description.unity.map((name) => found[name].data),
    seconds: (performance.now() - start) / 1000,
  };
  return answer(threshold);
}

/** Fuse the last photograph's pyramids at a threshold, without running the network. @param {number} threshold */
function answer(threshold) {
  const { height, width, sizes, probabilities, unity, seconds } = last, numClasses = description.names.length;
  const limit = Math.fround(threshold); // the network's probabilities are numbers of 32 bits, too
  const fused = fuse(sizes, (level, cell) => unity[level][cell] >= limit);
  current = { fused, probabilities: fusedProbabilities(fused, probabilities, numClasses) };
  const scale = Math.min(1, MOST_SHOWN / Math.max(height, width));
  const shown = { height: Math.max(1, Math.round(height * scale)), width: Math.max(1, Math.round(width * scale)) };
  const grids = (/** @type {ArrayLike<number>[]} */ maps) => maps.map((data, index) => ({ ...sizes[index], data }));
  return {
    ...shown, threshold, seconds,
    labels: classesOfPixels(current.probabilities, fused, numClasses, shown.height, shown.width),
    probabilities: current.probabilities,
    level: { height: fused.height, width: fused.width, data: fused.level },
    semantic: grids(probabilities.map((map) => mostLikely(map, numClasses))),
    unity: grids(unity),
  };
}

/** Return the label map at the photograph's own size. */
function labels() {
  const { height, width } = last;
  return { height, width,
    labels: classesOfPixels(current.probabilities, current.fused, description.names.length, height, width) };
}

/** @param {Description} given */
async function prepare(given) {
  description = given;
  ort.env.wasm.wasmPaths = new URL(".", self.location.href).href;
  // Threads need memory that workers share, which a browser allows only if the server sends two headers.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, self.navigator.hardwareConcurrency || 1) : 1;
  await sessionOf(description.networks[0]);
  return { threads: ort.env.wasm.numThreads };
}

self.onmessage = async ({ data: { number, kind, given } }) => {
  try {
    const work = { prepare, segment, fuse: answer, labels };
    self.postMessage({ number, found: await work[kind](given) });
  } catch (error) {
    self.postMessage({ number, problem: String(error && error.message || error) });
  }
};
