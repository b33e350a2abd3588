"""The style sheet and the script that every HTML page carries in itself."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #ffffff; --soft: #5a6068; --grid: #d4d8dd; --band: #f3f5f7;
  --link: #1f5fae; --warn: #8a4b00; --warn-band: #fff4e2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ea; --page: #16181b; --soft: #a7adb5; --grid: #3a3f46;
  --band: #1f2328; --link: #8ab8f0; --warn: #ffc772; --warn-band: #33270f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
.headline { font-size: 1.1rem; font-weight: 600; }
.note, figcaption, caption { color: var(--soft); font-size: .88rem; }
.warning { color: var(--warn); background: var(--warn-band); padding: .5rem .8rem; border-radius: .4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 9rem; }
.tile b { display: block; font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.tall { max-height: min(40rem, 75vh); overflow-y: auto; }
.tall table { margin-top: 0; } .tall thead th { position: sticky; top: 0; background: var(--page); }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption { text-align: left; padding: 0 0 .3rem; max-width: calc(100vw - 2rem); position: sticky; left: 0; }
th, td { padding: .28rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { padding-left: .2rem; }
tbody th { min-width: 7rem; } td:last-child:not(.r) { min-width: 12rem; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--grid); white-space: nowrap; }
tbody th { font-weight: 500; }
.r { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: "\\2195"; opacity: .45; padding-left: .25em; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
figure { margin: 1rem 0; max-width: 100%; min-width: 0; }
figure svg { display: block; max-width: 100%; height: auto; overflow: visible; color: var(--text); }
figure svg text { font-family: inherit !important; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
.no-frames { display: inline-block; background: var(--band); color: var(--soft); border: 1px dashed var(--grid);
  border-radius: .25rem; padding: 1.2rem 1.6rem; font-size: .88rem; }
.mistake { margin: 1rem 0 1.4rem; break-inside: avoid; } .mistake p { margin: 0 0 .3rem; }
.mistake figure { margin: 0; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.row figcaption { max-width: 27rem; }
.row { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
details summary { cursor: pointer; color: var(--link); }
@media print { :root { --text: #000; --page: #fff; --soft: #444; --grid: #bbb; --band: #f3f3f3; --link: #000;
  --warn: #000; --warn-band: #eee; color-scheme: light; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav, th button::after { display: none; }
  figure, tr, .tile { break-inside: avoid; } h2, h3, caption { break-after: avoid; }
  thead { display: table-header-group; } .scroll { overflow: visible; } .tall { max-height: none; }
  table { font-size: 8.5pt; } th, td { padding: .15rem .35rem; } thead th { white-space: normal; }
  tbody th, td:last-child:not(.r) { min-width: 0; }
  td, tbody th { overflow-wrap: anywhere; } figure svg, figure img { min-width: 0 !important; } }
"""

SCRIPT = """
"use strict";
(function () {
  function value(row, column) {
    var cell = row.cells[column];
    var text = cell.hasAttribute("data-sort") ? cell.getAttribute("data-sort") : cell.textContent.trim();
    var number = text === "" ? NaN : Number(text);
    return { text: text, number: number, empty: text === "", numeric: !isNaN(number) };
  }
  function compare(a, b) {
    if (a.numeric && b.numeric) { return a.number - b.number; }
    return a.text.localeCompare(b.text, undefined, { numeric: true, sensitivity: "base" });
  }
  function sort(table, head) {
    var column = head.cellIndex, body = table.tBodies[0];
    var rows = Array.prototype.map.call(body.rows, function (row) { return { row: row, value: value(row, column) }; });
    var numeric = rows.some(function (r) { return r.value.numeric; });
    var before = head.getAttribute("aria-sort");
    var down = before === "none" ? numeric : before === "ascending";
    rows.sort(function (a, b) {
      if (a.value.empty !== b.value.empty) { return a.value.empty ? 1 : -1; }
      return (down ? -1 : 1) * compare(a.value, b.value);
    });
    rows.forEach(function (r) { body.appendChild(r.row); });
    Array.prototype.forEach.call(head.parentNode.cells, function (cell) {
      cell.setAttribute("aria-sort", cell === head ? (down ? "descending" : "ascending") : "none");
    });
  }
  document.querySelectorAll("table.sortable thead th").forEach(function (head) {
    head.querySelector("button").addEventListener("click", function () { sort(head.closest("table"), head); });
  });
})();
"""
