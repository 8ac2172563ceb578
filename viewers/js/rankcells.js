// All ranks of a run as cells in a row: how high each peaks, which failed, stand out or are missing. Chosen by click or key.

import { element } from "./dom.js";

/** Up to so many ranks, each cell has room for its number. */
const NAMED = 32;
const KEY_MOVES = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 };

/** What a cell says, in words. */
export function cellTitle(cell) {
  return [`${cell.label}: peak ${cell.peak}`, cell.time && `${cell.time.window} on the GPU`, ...cell.notes].filter(Boolean).join("; ");
}

/** The class names of a cell: how its rank ended, whether it stands out. */
export function cellClass(cell) {
  return [cell.state === "good" ? "" : cell.state, cell.outlier ? "outlier" : ""].filter(Boolean).join(" ");
}

/**
 * Cells as one stop of the tab key, in which arrows go from rank to rank, Home and End to the first and last.
 * `draw` makes what a cell holds; missing ranks stand at their place.
 */
export function rankCells(ranked, chosen, choose, draw, attributes) {
  const current = Math.max(ranked.cells.findIndex((cell) => cell.position === chosen), 0);
  const buttons = ranked.cells.map((cell, index) =>
    element(
      "button",
      { type: "button", class: `rank-cell ${cellClass(cell)}`, "data-position": cell.position, "data-rank": cell.name, tabindex: index === current ? "0" : "-1", "aria-pressed": String(cell.position === chosen), "aria-label": `${cell.name} ${cell.mini || !cell.time ? cell.peak : cell.time.window}: ${cellTitle(cell)}`, title: cellTitle(cell), onclick: () => choose(cell.position) },
      draw(cell),
    ),
  );
  const nodes = [...buttons];
  for (const gap of [...ranked.missing].reverse()) {
    const at = ranked.cells.findIndex((cell) => cell.rank !== null && cell.rank > gap.before);
    const hole = element("span", { class: "rank-cell missing", "data-missing": gap.name, title: gap.label, role: "img", "aria-label": gap.label }, gap.count > 1 ? `${gap.count.toLocaleString("en-US")} missing` : "–");
    nodes.splice(at < 0 ? nodes.length : at, 0, hole);
  }
  const onkeydown = (event) => {
    const from = buttons.indexOf(event.target);
    const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : from + KEY_MOVES[event.key];
    if (from < 0 || !buttons[to]) return;
    buttons[to].focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return element("div", { role: "group", onkeydown, ...attributes }, nodes);
}

/** The strip above every view: a list to choose from, and a cell a rank as high as its peak. */
export function rankStrip(payload, chosen, choose) {
  const { overview, ranked } = payload;
  if (!ranked) return null;
  const options = overview.map((rank, index) => element("option", { value: String(index), selected: index === chosen }, `${rank.label} – peak ${rank.peak}`));
  const select = element("select", { id: "rank-select", onchange: (event) => choose(Number(event.currentTarget.value)) }, options);
  const isMany = ranked.cells.length > NAMED;
  const fill = (cell) => [element("span", { class: "rank-fill", style: { height: `${(cell.share * 100).toFixed(1)}%` } }), !isMany && cell.rank !== null && element("span", { class: "rank-number" }, cell.name)];
  const cells = rankCells(ranked, chosen, choose, fill, { class: isMany ? "rank-strip many" : "rank-strip", id: "rank-strip", "aria-label": `peaks of ${ranked.cells.length} ${ranked.noun}` });
  const count = `${ranked.cells.length.toLocaleString("en-US")} ${ranked.noun}`;
  return element("nav", { class: "ranks panel", "aria-label": ranked.noun }, element("div", { class: "rank-choice" }, element("label", { for: "rank-select" }, count), select), cells);
}
