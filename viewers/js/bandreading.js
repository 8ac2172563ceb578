// What the pointer reads on the timeline: bytes in use at the moment of its column, by category, and the lines over them.

import { isTimed, momentsWithin, placeOfMoment } from "./camera.js";
import { element, swatch } from "./dom.js";
import { formatBytes, formatSeconds } from "./format.js";
import { lowestMoment, sumsAt } from "./levels.js";
import { lastNotAbove } from "./search.js";

/** The reading of one moment; `stretch` are the ends of its column, `module` is where the program was. */
export function bandReading({ data, categories, series, around }, axis, moment, stretch, module) {
  const sums = sumsAt(data, moment, new Float64Array(data.order.length));
  const when = isTimed(data, axis) ? formatSeconds(data.seconds[moment]) : `event ${Math.max(Math.round(placeOfMoment(data, axis, moment)), 0).toLocaleString("en-US")}`;
  const where = around.where(axis, placeOfMoment(data, axis, moment));
  const head = element("div", { class: "reading-head" }, element("span", {}, when), where && element("span", { class: "muted" }, where));
  const lowest = data.level[lowestMoment(data, ...momentsWithin(data, axis, ...stretch))];
  const lines = [["in use", data.level[moment]], ...linesAt(data, series, moment), lowest < data.level[moment] ? ["lowest here", lowest] : null].filter(Boolean);
  const rows = [...data.order].reverse().filter((place) => sums[place] > 0).map((place) => readingRow(swatch(categories[place].color, categories[place].hatched), categories[place].label, sums[place]));
  return [head, element("table", {}, element("tbody", {}, lines.map(([label, bytes]) => readingRow("", label, bytes, "total")), rows)), module && element("div", { class: "muted mono" }, `in ${module}`)].filter(Boolean);
}

// Lines are thinned: only where a point of theirs is the very moment, they are told.
function linesAt(data, series, moment) {
  const event = data.event?.[moment];
  const at = series === null || event === undefined ? -1 : lastNotAbove(series.event, event);
  if (at < 0 || series.event[at] !== event) return [];
  return ["allocated", "reserved"].filter((name) => series[name]).map((name) => [name, series[name][at]]);
}

function readingRow(mark, label, bytes, kind = "") {
  return element("tr", { class: kind, "data-label": label }, element("td", {}, mark), element("td", {}, label), element("td", { class: "number" }, formatBytes(bytes)));
}
