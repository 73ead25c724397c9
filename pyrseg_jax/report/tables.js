"use strict";
// Part of the report's script: sort tables, and find the examples of a confusion.

/** Show which examples have pixels of one class that were predicted as another. @param {number} truth @param {number} predicted
 * @param {View[]} views */
function showPair(truth, predicted, views) {
  const panel = document.getElementById("pair-examples");
  const total = values.pairs[`${truth},${predicted}`];
  const found = views.map((view) => ({ view, pixels: (view.example.confusion.find((entry) =>
    entry[0] === truth && entry[1] === predicted) || [0, 0, 0])[2] })).filter((entry) => entry.pixels > 0)
    .sort((a, b) => b.pixels - a.pixels).slice(0, 12);
  const title = document.createElement("p"), list = document.createElement("ul");
  title.textContent = truth === predicted ? `${values.names[truth]} is predicted rightly there.`
    : `${values.names[truth]} predicted as ${values.names[predicted]}`
      + (total ? `: ${total.toLocaleString("en-US")} pixels in all images. ` : ". ")
      + (found.length ? "Examples in this report, most such pixels first:" : "No example in this report shows it.");
  for (const { view, pixels } of truth === predicted ? [] : found) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = `${view.example.name}: ${pixels.toLocaleString("en-US")} pixels`;
    button.addEventListener("click", () => {
      view.pair = [truth, predicted];
      draw(view);
      for (const other of views) other.figure.classList.toggle("is-sought", other === view);
      view.figure.scrollIntoView({ block: "center" });
      /** @type {HTMLElement} */ (view.figure.querySelector(".tau-slider")).focus({ preventScroll: true });
    });
    item.append(button);
    list.append(item);
  }
  panel.replaceChildren(title, list);
}

/** @param {View[]} views */
function connectMatrix(views) {
  for (const button of document.querySelectorAll("button.pair")) {
    const { truth, predicted } = /** @type {HTMLElement} */ (button).dataset;
    button.addEventListener("click", () => showPair(Number(truth), Number(predicted), views));
  }
  const matrix = document.querySelector("table.matrix");
  if (!matrix) return;
  const rows = [...matrix.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
  const cells = rows.flat();
  cells.forEach((cell, i) => { cell.tabIndex = i ? -1 : 0; cell.setAttribute("role", "gridcell"); });
  const choose = (/** @type {HTMLElement} */ cell) => {
    for (const other of cells) { other.tabIndex = other === cell ? 0 : -1; other.removeAttribute("aria-selected"); }
    cell.setAttribute("aria-selected", "true");
    showPair(Number(cell.dataset.truth), Number(cell.dataset.predicted), views);
  };
  matrix.addEventListener("click", (event) => {
    const cell = /** @type {HTMLElement} */ (event.target).closest("td");
    if (cell) choose(cell);
  });
  matrix.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const cell = /** @type {HTMLTableCellElement} */ (/** @type {HTMLElement} */ (event.target).closest("td"));
    if (!cell) return;
    const y = rows.findIndex((row) => row.includes(cell)), x = rows[y].indexOf(cell);
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" || event.key === " ") choose(cell);
    else if (event.key in moves) {
      const [down, right] = moves[event.key], next = rows[y + down] && rows[y + down][x + right];
      if (next) { cell.tabIndex = -1; next.tabIndex = 0; next.focus(); }
    } else return;
    event.preventDefault();
  });
}

/** Let the reader sort a table by a column. @param {HTMLTableElement} table */
function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const valueOf = (/** @type {HTMLTableRowElement} */ row, /** @type {number} */ column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined ? null : JSON.parse(text);
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const isText = typeof valueOf(body.rows[0], column) === "string";
      const before = heading.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : isText ? "ascending" : "descending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
      rows.sort((a, b) => a.value === null || b.value === null ? Number(a.value === null) - Number(b.value === null)
        : sign * (typeof a.value === "string" ? a.value.localeCompare(b.value) : a.value - b.value));
      body.append(...rows.map(({ row }) => row));
    });
  });
}
