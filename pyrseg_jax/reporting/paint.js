"use strict";
// Draw maps and legends in a browser. The report of a run and the demo page share this file.

/**
 * Draw a map at its own size; where the function returns null, the canvas stays transparent.
 * @param {HTMLCanvasElement} canvas
 * @param {{height: number, width: number, data: ArrayLike<number>}} grid
 * @param {(value: number, index: number) => ArrayLike<number> | null} colorOf
 */
function paint(canvas, grid, colorOf) {
  canvas.width = grid.width; canvas.height = grid.height;
  const context = canvas.getContext("2d"), image = context.createImageData(grid.width, grid.height);
  for (let i = 0; i < grid.data.length; i++) {
    const color = colorOf(grid.data[i], i);
    if (color) image.data.set([color[0], color[1], color[2], 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

/** Draw a small square of a color; the text beside it names the class, so it needs no alternative. @param {ArrayLike<number>} color */
function swatch(color) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  const rect = document.createElementNS(space, "rect");
  svg.setAttribute("class", "swatch"); svg.setAttribute("viewBox", "0 0 10 10"); svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("width", "10"); rect.setAttribute("height", "10");
  rect.setAttribute("fill", `rgb(${Array.from(color).join(",")})`);
  svg.append(rect);
  return svg;
}
