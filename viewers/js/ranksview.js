// All ranks beside each other: a small timeline each, what differs between them, and a table.

import { columnHead, element, meter, section, stackedBar } from "./dom.js";
import { resolveArray } from "./arrays.js";
import { cellClass, cellTitle, rankCells } from "./rankcells.js";
import { saveCsv } from "./save.js";

/** The view of the run. `choose` is given the position of a rank. */
export function ranksSections(payload, chosen, choose) {
  const { ranked } = payload;
  return [multiples(payload, chosen, choose), differences(ranked), rankTable(ranked, chosen, choose)].filter(Boolean);
}

/** Levels as a shape over a ground line, for `clip-path`: one step a level; where nothing is known it lies on the ground. */
export function levelShape(levels, top) {
  const points = ["0% 100%"];
  levels.forEach((level, at) => {
    const height = Number.isNaN(level) ? 0 : Math.max((level / top) * 100, level > 0 ? 1 : 0);
    const y = `${+(100 - height).toFixed(2)}%`;
    points.push(`${+((at / levels.length) * 100).toFixed(3)}% ${y}`, `${+(((at + 1) / levels.length) * 100).toFixed(3)}% ${y}`);
  });
  return `polygon(${[...points, "100% 100%"].join(",")})`;
}

function picture(payload, cell) {
  const { ranked } = payload;
  const shape = levelShape([...resolveArray(payload, cell.mini)], ranked.top || 1);
  const mark = ranked.mark !== null && element("span", { class: "mini-mark", style: { left: `${(ranked.mark * 100).toFixed(2)}%` } });
  return element("span", { class: "mini", "aria-hidden": "true" }, mark, element("span", { class: "mini-level", style: { "clip-path": shape } }));
}

function multiples(payload, chosen, choose) {
  const { ranked } = payload;
  const draw = (cell) => [
    element("span", { class: "mini-head" }, element("b", {}, cell.name), " ", element("span", { class: "number" }, !cell.mini && cell.time ? cell.time.window : cell.peak)),
    cell.mini ? picture(payload, cell) : cell.time ? element("span", { class: "mini", "aria-hidden": "true" }, stackedBar(cell.time.parts, "where the time goes")) : element("span", { class: "mini none", "aria-hidden": "true" }, "no history"),
  ];
  const cells = rankCells(ranked, chosen, choose, draw, { class: "minis", id: "rank-minis", "aria-label": `memory over time of ${ranked.cells.length} ${ranked.noun}` });
  const lead = ranked.span
    ? `Bytes in use over ${ranked.span}, all on one axis and up to one height, ${ranked.top_text}. ${ranked.aligned} Click one to see it in every view.`
    : "No memory was recorded over time: where the time on the GPU goes, of each. Click one to see it in every view.";
  return section("small-multiples", `${ranked.cells.length.toLocaleString("en-US")} ${ranked.noun} over time`, lead, element("div", { class: "panel" }, cells));
}

function differences(ranked) {
  if (!ranked.spreads.length && !ranked.outliers.length && !ranked.schemes.length) return null;
  const heads = ["", "Lowest", "In the middle", "Highest"].map((label, index) => columnHead(label, { class: index ? "number" : null }));
  const rows = ranked.spreads.map((spread) =>
    element("tr", { "data-spread": spread.name }, element("th", { scope: "row" }, spread.name), spread.values.map((value, at) => element("td", { class: "number" }, value, spread.ranks[at] !== null && element("span", { class: "muted" }, ` rank ${spread.ranks[at]}`)))),
  );
  const table = rows.length > 0 && element("div", { class: "scroll" }, element("table", { id: "spread-table" }, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows)));
  const outliers = ranked.outliers.map((one) =>
    element("li", { class: "outlier-item" }, element("strong", {}, one.title), element("dl", {}, one.differences.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", { class: "number" }, text)))), one.facts.map((fact) => element("p", { class: "muted" }, fact))),
  );
  const schemes = ranked.schemes.map(([name, how]) => element("p", { class: "scheme" }, element("strong", {}, name), " ", element("span", { class: "muted" }, how)));
  return section("rank-differences", "How they differ", null, element("div", { class: "panel" }, schemes, table, outliers.length > 0 && element("ol", { class: "outliers" }, outliers)));
}

function rankTable(ranked, chosen, choose) {
  const heads = [ranked.noun === "ranks" ? "Rank" : "Device", "Host", "Peak", "", "Steady", "Reserved", "Last step", "State"];
  const head = element("tr", {}, heads.map((label, index) => columnHead(label, { class: [2, 4, 5, 6].includes(index) ? "number" : null })));
  const rows = ranked.cells.map((cell) =>
    element(
      "tr",
      { "data-row": cell.name, class: cell.position === chosen ? "chosen" : null },
      element("th", { scope: "row" }, element("button", { type: "button", class: "link", title: cellTitle(cell), onclick: () => choose(cell.position) }, cell.label)),
      element("td", {}, cell.host ?? ""),
      element("td", { class: "number strong" }, cell.peak),
      element("td", { class: "bar-column narrow" }, meter(cell.share, "ink")),
      [cell.steady, cell.reserved, cell.last_step].map((value) => element("td", { class: "number" }, value)),
      element("td", { class: `rank-state ${cellClass(cell)}` }, cell.notes.join("; ") || "ended in order"),
    ),
  );
  const gaps = ranked.missing.map((gap) => element("tr", { class: "unrecorded" }, element("th", { scope: "row" }, gap.name), element("td", { colspan: heads.length - 1 }, gap.label)));
  const table = element("table", { id: "rank-table" }, element("thead", {}, head), element("tbody", {}, rows, gaps));
  const texts = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const save = element("p", { class: "more" }, element("button", { type: "button", class: "quiet", onclick: () => saveCsv(texts(), "memtrace-ranks.csv") }, "Save CSV"));
  return section("rank-list", ranked.noun === "ranks" ? "Rank by rank" : "Device by device", null, element("div", { class: "panel" }, element("div", { class: "scroll tall" }, table), save));
}
