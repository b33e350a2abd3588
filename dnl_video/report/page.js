// Sorts a table when a heading is clicked, and marks tables and figures that are wider than the page.
"use strict";
(function () {
  function mark() {
    for (const box of document.querySelectorAll(".scroll")) {
      box.classList.remove("wide");
      box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
    }
  }
  mark();
  addEventListener("resize", mark);
  function value(row, column) {
    const cell = row.cells[column];
    const text = cell.hasAttribute("data-sort") ? cell.getAttribute("data-sort") : cell.textContent.trim();
    return { row: row, text: text, empty: text === "", number: text === "" ? NaN : Number(text) };
  }
  function compare(a, b) {
    if (!isNaN(a.number) && !isNaN(b.number)) { return a.number - b.number; }
    return a.text.localeCompare(b.text, undefined, { numeric: true, sensitivity: "base" });
  }
  function sort(table, head) {
    const body = table.tBodies[0], rows = Array.from(body.rows, row => value(row, head.cellIndex));
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? rows.some(r => !isNaN(r.number)) : before === "ascending";
    rows.sort((a, b) => a.empty !== b.empty ? (a.empty ? 1 : -1) : (down ? -1 : 1) * compare(a, b));
    body.append(...rows.map(r => r.row));
    for (const cell of head.parentNode.cells) {
      cell.setAttribute("aria-sort", cell !== head ? "none" : down ? "descending" : "ascending");
    }
  }
  for (const head of document.querySelectorAll("table.sortable thead th")) {
    head.querySelector("button").addEventListener("click", () => sort(head.closest("table"), head));
  }
})();
