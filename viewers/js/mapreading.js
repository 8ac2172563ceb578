// What the pointer reads on the map: the moment of its column, and the allocation under it.

import { momentText } from "./details.js";
import { element, swatch } from "./dom.js";
import { formatBytes, formatSeconds } from "./format.js";
import { headlineFrame, nameOf, shortFrame } from "./rows.js";
import { TIME_ROW } from "./surface.js";
import { laneReading } from "./timelanes.js";

/** Show what is at a place of the surface, or hide the reading where the place is null or outside. */
export function readMap(self, place) {
  const { reading, surface, view } = self;
  const moment = place === null ? -1 : surface.momentAtX(place.x, view);
  const row = place === null ? -1 : mapTimeRowAt(self, place);
  if (place === null || place.shareX < 0 || place.shareX > 1 || (row < 0 && (place.shareY < 0 || place.shareY > 1))) {
    reading.hidden = true;
    return;
  }
  const nothing = [element("div", { class: "muted" }, "not recorded here")];
  const nodes = row < 0 ? (moment < 0 ? nothing : readingOf(self, moment, surface.idAt(place.x, place.y, view))) : timeReading(self, place, row, moment);
  reading.replaceChildren(...nodes);
  reading.hidden = false;
  const box = surface.node.getBoundingClientRect();
  const beyond = place.x + 24 + reading.offsetWidth > box.width;
  reading.style.left = `${Math.max(beyond ? place.x - reading.offsetWidth - 16 : place.x + 16, 0)}px`;
  reading.style.top = `${Math.max(8, Math.min(place.y - 40, box.height - reading.offsetHeight - 8))}px`;
}

// The row of time at a place; -1 outside of them.
function mapTimeRowAt({ surface, view }, place) {
  const plot = surface.plot(view);
  const row = Math.floor((place.y - plot.top - plot.height - surface.timeTop(view)) / TIME_ROW);
  return row >= 0 && row < surface.timeRows ? row : -1;
}

function timeReading({ camera, time, data, view }, place, row, moment) {
  const seconds = camera.x0 + place.shareX * (camera.x1 - camera.x0);
  const where = moment < 0 ? "" : momentText(data, view, moment);
  const head = element("div", { class: "reading-head" }, element("span", {}, formatSeconds(seconds)), element("span", { class: "muted" }, where));
  return laneReading(time, row, (seconds - time.map_shift) * 1e9, head);
}

function readingOf(self, moment, id) {
  const { data, view } = self;
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
    frame >= 0 && element("div", { class: "muted mono" }, shortFrame(view.frames[frame])),
  ].filter(Boolean);
}
