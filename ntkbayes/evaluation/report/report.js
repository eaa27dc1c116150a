"use strict";
// Without this script the tables are complete, in the order of the methods.
const MISSING = "–";

function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replaceAll(",", "").replaceAll("−", "-"));
  return { text, number, missing: text === MISSING || text === "" };
}

function order(a, b) {
  if (Number.isNaN(a.number) || Number.isNaN(b.number)) return a.text.localeCompare(b.text);
  return a.number - b.number;
}

function sortBy(table, head, column) {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, key: key(row, column) }));
  rows.sort((a, b) => {
    if (a.key.missing || b.key.missing) return a.key.missing - b.key.missing; // always last
    return sign * order(a.key, b.key);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, head, column));
  });
}

// What is folded away is printed too.
const folded = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    folded.push(details);
  }
});
addEventListener("afterprint", () => {
  while (folded.length) folded.pop().open = false;
});
