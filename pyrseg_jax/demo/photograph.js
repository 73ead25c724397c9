"use strict";
// Pictures from files, from the folder of the page, and from the camera, as upright RGBA pixels.

const STRIP = 512; // rows that are read at a time: phones have no canvas for a whole large photograph

/**
 * A picture whose pixels can be drawn.
 * @typedef {{source: ImageBitmap | HTMLVideoElement, height: number, width: number}} Picture
 */

/**
 * Decode a file, turned as its EXIF orientation says.
 * @param {Blob} blob @returns {Promise<Picture>}
 */
async function decode(blob) {
  // Python does not convert colors to another color space, either.
  const source = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  return { source, height: source.height, width: source.width };
}

/** Return all pixels of a picture, with white behind transparency. @param {Picture} picture @returns {Uint8ClampedArray} */
function pixelsOf({ source, height, width }) {
  const canvas = document.createElement("canvas"), rgba = new Uint8ClampedArray(4 * height * width);
  canvas.width = width; canvas.height = Math.min(STRIP, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(source, 0, top, width, rows, 0, 0, width, rows);
    rgba.set(context.getImageData(0, 0, width, rows).data, 4 * top * width);
  }
  return rgba;
}

/** Draw a picture at the size at which the page shows it. @param {HTMLCanvasElement} canvas @param {Picture} picture */
function drawPicture(canvas, { source, height, width }) {
  const scale = Math.min(1, 1024 / Math.max(height, width));
  canvas.width = Math.max(1, Math.round(width * scale)); canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
}

/** Why the camera cannot be used, in words for the user. @param {Error} error */
function cameraProblem(error) {
  const words = {
    NotAllowedError: "The camera was refused: allow it for this page in the browser's settings, or choose a photograph.",
    NotFoundError: "This device has no camera: choose a photograph.",
    NotReadableError: "The camera cannot be used, perhaps because another program uses it: close that program, or choose a photograph.",
  };
  return words[error.name] || `The camera cannot be used (${error.message || error.name}): choose a photograph.`;
}

/**
 * Start the camera; the promise is rejected with an error for the user.
 * @returns {Promise<HTMLVideoElement>}
 */
async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers allow the camera only to pages from https:// or from this computer: choose a photograph.");
  }
  let stream;
  try {
    const video = { facingMode: { ideal: "environment" }, width: { ideal: 640 }, height: { ideal: 480 } };
    stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw new Error(cameraProblem(error));
  }
  const video = document.createElement("video");
  video.muted = true; video.playsInline = true; video.srcObject = stream;
  await video.play();
  return video;
}

/** @param {HTMLVideoElement} video */
function stopCamera(video) {
  for (const track of /** @type {MediaStream} */ (video.srcObject).getTracks()) track.stop();
}
