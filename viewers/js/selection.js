// What lies in a box that was selected on a chart, by category: allocated there, and in use at its highest moment.

import { momentsWithin, placeOfMoment } from "./camera.js";
import { element, swatch } from "./dom.js";
import { formatBytes, formatSeconds } from "./format.js";
import { secondOfPlace } from "./folds.js";
import { highestMoment, sumsAt } from "./levels.js";
import { lastNotAbove } from "./search.js";

/** The sums of a stretch of places: its moments, the highest of them with its categories, and what was allocated in it. */
export function sumsWithin(data, axis, from, to) {
  const [first, last] = momentsWithin(data, axis, from, to);
  const highest = highestMoment(data, first, last);
  const inUse = sumsAt(data, highest, new Float64Array(data.order.length));
  const allocated = new Float64Array(data.order.length);
  let count = 0;
  // What already was in use when the stretch begins was not allocated in it.
  const begin = placeOfMoment(data, axis, first) < from ? first + 1 : first;
  for (let row = data.count ? lastNotAbove(data.start, begin - 1) + 1 : 0; row < data.count && data.start[row] <= last; row += 1) {
    if (data.initial[row]) continue;
    allocated[data.category[row]] += data.size[row];
    count += 1;
  }
  return { first, last, highest, inUse, allocated, count };
}

/** The sums of allocations, by category. */
export function sumsOfRows(data, rows) {
  const drawn = new Float64Array(data.order.length);
  for (const row of rows) drawn[data.category[row]] += data.size[row];
  return drawn;
}

/** The panel of a selection; `rows` are the allocations drawn inside the box, null where bands are drawn. */
export function selectionPanel(data, categories, axis, inSeconds, [from, to], rows, act) {
  const sums = sumsWithin(data, axis, from, to);
  const length = inSeconds ? formatSeconds(secondOfPlace(data.folds, to) - secondOfPlace(data.folds, from)) : `${Math.max(Math.round(to - from), 1).toLocaleString("en-US")} events`;
  const columns = [["In use at its highest", sums.inUse]];
  if (data.count) columns.push(["Allocated in it", sums.allocated]);
  if (rows) columns.unshift(["Drawn in the box", sumsOfRows(data, rows)]);
  const lines = [...data.order].reverse().filter((place) => columns.some(([, values]) => values[place] > 0));
  const cells = (values) => columns.map(([, sum]) => element("td", { class: "number" }, formatBytes(values(sum))));
  const total = element("tr", { class: "total", "data-selected": "total" }, element("th", { scope: "row" }, "in all"), cells((sum) => sum.reduce((bytes, one) => bytes + one, 0)));
  const table = element(
    "table",
    { id: "selection-table" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Category"), columns.map(([label]) => element("th", { scope: "col", class: "number" }, label)))),
    element("tbody", {}, total, lines.map((place) => element("tr", { "data-selected": categories[place].name }, element("th", { scope: "row" }, swatch(categories[place].color, categories[place].hatched), categories[place].label), cells((sum) => sum[place])))),
  );
  const button = (label, onclick) => element("button", { type: "button", class: "quiet", onclick }, label);
  const counted = [rows && `${rows.length.toLocaleString("en-US")} allocations drawn in the box`, data.count > 0 && `${sums.count.toLocaleString("en-US")} allocated in it`].filter(Boolean);
  return [
    element("div", { class: "toolbar" }, element("strong", {}, length), element("span", { class: "muted" }, counted.join(" · ")), element("div", { class: "tools" }, button("Zoom to it", act.zoom), button("Show its highest moment", () => act.show(sums.highest)), button("Close", act.close))),
    element("div", { class: "scroll" }, table),
  ];
}
