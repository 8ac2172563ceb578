// Where the GPU's time goes: the whole as one bar, a row a step, and what no row holds.

import { columnHead, element, section, stackedBar, swatch } from "./dom.js";
import { saveCsv } from "./save.js";

/** The view of one rank with a time. */
export function timeSection(rank) {
  const view = rank.time;
  const titled = (parts) => parts.map((part) => ({ ...part, title: `${part.label} ${part.value} (${part.percent})` }));
  const keys = view.parts.map((part) =>
    element("span", { class: "key", "data-part": part.name }, swatch(part.color, part.hatched), `${part.label} `, element("b", { class: "number" }, part.percent), element("span", { class: "muted number" }, ` ${part.value}`)),
  );
  const head = element("tr", {}, ["Step", "", ...view.columns].map((label, index) => columnHead(label, { class: index > 1 ? "number" : null })));
  const rows = view.rows.map((row) =>
    element(
      "tr",
      { "data-time-step": row.label },
      element("th", { scope: "row" }, row.label),
      element("td", { class: "bar-column" }, element("div", { style: { width: `${(row.share * 100).toFixed(2)}%` }, class: "bar-scale" }, stackedBar(titled(row.parts), "where the time goes"))),
      row.values.map((value) => element("td", { class: "number" }, value)),
    ),
  );
  const total = element("tr", { "data-time-step": "whole" }, element("th", { scope: "row" }, "whole"), element("td"), view.total.map((value) => element("td", { class: "number" }, value)));
  const table = element("table", { id: "time-table" }, element("thead", {}, head), element("tbody", {}, rows), element("tfoot", {}, total));
  const texts = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const leftOut = view.left_out > 0 && element("p", { class: "muted" }, `${view.left_out.toLocaleString("en-US")} later steps are not in this page.`);
  const save = element("p", { class: "more" }, element("button", { type: "button", class: "quiet", onclick: () => saveCsv(texts(), "memtrace-time.csv") }, "Save CSV"));
  return section(
    "time",
    "Where the GPU's time goes",
    `${view.window} from the first activity on the GPU to the end of the last. Each moment is in one part.`,
    element("div", { class: "panel" }, stackedBar(titled(view.parts), "the whole profile"), element("div", { class: "legend time-legend" }, keys)),
    element("div", { class: "panel" }, element("div", { class: "scroll tall" }, table), leftOut, save),
    element("ul", { class: "remarks muted" }, [view.about, ...view.remarks].map((text) => element("li", {}, text))),
  );
}
