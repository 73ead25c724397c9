"use strict";
// Part of the report's script: say the values of the curves under the pointer, or where the arrow keys move.

/**
 * What a chart knows of its curves: `left` and `right` are the horizontal places of step 0 and of step `last` in its drawing.
 * @typedef {{left: number, right: number, last: number, isShare: boolean, curves: [string, [number, number][]][]}} Plotted
 */

/** @param {number} value @param {boolean} isShare */
function sayValue(value, isShare) {
  return isShare ? `${(100 * value).toFixed(2)} %` : String(Number(value.toPrecision(4)));
}

/** Return the point whose step is nearest. @param {[number, number][]} points @param {number} step */
function nearestPoint(points, step) {
  return points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
}

/** Let the reader move through the steps of a chart. @param {HTMLElement} figure */
function connectReadout(figure) {
  const drawing = /** @type {SVGSVGElement} */ (figure.querySelector("svg.plot"));
  const output = /** @type {HTMLElement} */ (figure.querySelector(".readout"));
  const hint = output.textContent;
  /** @type {Plotted} */
  const plotted = JSON.parse(drawing.dataset.curves);
  const steps = [...new Set(plotted.curves.flatMap(([, points]) => points.map(([step]) => step)))].sort((a, b) => a - b);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const [, , width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
  line.setAttribute("class", "cursor");
  line.setAttribute("y1", "0"); line.setAttribute("y2", String(height));
  let position = -1; // in `steps`; -1 shows nothing
  const show = (/** @type {number} */ next) => {
    position = Math.max(0, Math.min(steps.length - 1, next));
    const step = steps[position];
    const x = String(plotted.left + step / plotted.last * (plotted.right - plotted.left));
    line.setAttribute("x1", x); line.setAttribute("x2", x);
    drawing.append(line);
    const told = plotted.curves.map(([label, points]) => {
      const [at, value] = nearestPoint(points, step);
      return `${label} ${sayValue(value, plotted.isShare)}${at === step ? "" : ` (at step ${at.toLocaleString("en-US")})`}`;
    });
    output.textContent = `step ${step.toLocaleString("en-US")}: ${told.join(", ")}`;
  };
  const hide = () => { line.remove(); position = -1; output.textContent = hint; };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * width;
    const wanted = (x - plotted.left) / (plotted.right - plotted.left) * plotted.last;
    show(steps.indexOf(steps.reduce((best, step) => Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best)));
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("focus", () => { if (position < 0) show(steps.length - 1); });
  drawing.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: position - 1, ArrowRight: position + 1, PageUp: position - 10, PageDown: position + 10, Home: 0,
      End: steps.length - 1 };
    if (event.key === "Escape") hide();
    else if (event.key in moves) show(moves[event.key]);
    else return;
    event.preventDefault();
  });
}
