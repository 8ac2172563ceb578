// What the pointer reads on the map: the moment of its column, and the allocation under it.

import { momentText } from "./details.js";
import { element, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { headlineFrame, nameOf } from "./rows.js";

/** The reading of a moment and the id that lies under the pointer. */
export function mapReading({ data, view }, moment, id) {
  const head = element("div", { class: "reading-head" }, element("span", {}, momentText(data, view, moment)));
  const total = element("tr", { class: "total", "data-label": "in use" }, element("td"), element("td", {}, "in use"), element("td", { class: "number" }, formatBytes(data.level[moment])));
  if (id === 0) return [head, element("table", {}, element("tbody", {}, total))];
  if (id > data.count) {
    const text = id === data.count + 1 + data.base.length ? "reserved, free" : "live before the recording; no block known";
    return [head, element("table", {}, element("tbody", {}, total)), element("div", { class: "muted" }, text)];
  }
  const row = id - 1;
  const category = view.categories[data.category[row]];
  const frame = headlineFrame(data, view, row);
  return [
    head,
    element("table", {}, element("tbody", {}, total, element("tr", { "data-label": "allocation" }, element("td", {}, swatch(category.color, category.hatched)), element("td", {}, nameOf(data, view, row) ?? category.label), element("td", { class: "number" }, formatBytes(data.size[row]))))),
    data.module[row] > 0 && element("div", { class: "muted" }, view.modules[data.module[row] - 1]),
    frame >= 0 && element("div", { class: "muted mono" }, view.frame_names[frame]),
  ].filter(Boolean);
}
