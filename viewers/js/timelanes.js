// Lanes of time below the memory: stretches on a canvas, and what lies under the pointer. Times are ns.

import { element, swatch } from "./dom.js";
import { resolveArray } from "./arrays.js";
import { formatNs } from "./format.js";
import { lastNotAbove } from "./search.js";

/** What is rare and short must be seen: how much of its column a stretch covers at least, by the name of its lane. */
const LEAST = { data: 1, allocator: 1 };

/** The lanes of a rank with their arrays; null where it has none. */
export function openLanes(payload, time) {
  const view = time?.lanes;
  if (!view) return null;
  const lanes = view.lanes.map((lane) => ({ ...lane, starts: resolveArray(payload, lane.starts), ends: resolveArray(payload, lane.ends) }));
  return { ...view, lanes };
}

/** How much of each column of pixels the stretches of a lane cover, from 0 to 1; all columns show the time from `from` to `to`. */
export function laneCover({ starts, ends }, from, to, width, least = 0) {
  const cover = new Float32Array(width);
  const scale = width / (to - from);
  for (let at = Math.max(lastNotAbove(starts, from), 0); at < starts.length && starts[at] < to; at += 1) {
    const left = Math.max((starts[at] - from) * scale, 0);
    const right = Math.min((ends[at] - from) * scale, width);
    if (right <= left) continue;
    const [first, last] = [Math.floor(left), Math.min(Math.floor(right), width - 1)];
    if (first === last) cover[first] = Math.max(cover[first] + right - left, least);
    else {
      cover[first] = Math.max(cover[first] + first + 1 - left, least);
      cover.fill(1, first + 1, last);
      cover[last] += right - last;
    }
  }
  return cover;
}

// One row of pixels in the colour of a lane, as opaque as each column is covered.
function stripOf(cover, color) {
  const strip = element("canvas", { width: cover.length, height: 1 });
  const context = strip.getContext("2d");
  const pixels = context.createImageData(cover.length, 1);
  cover.forEach((share, column) => { pixels.data[column * 4 + 3] = Math.round(Math.min(share, 1) * 255); });
  context.putImageData(pixels, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = color;
  context.fillRect(0, 0, cover.length, 1);
  return strip;
}

/** Draw lanes: `box` gives left, top, width and height of a row in pixels, `from` and `to` the time that is shown. */
export function paintLanes(context, view, box, from, to, style = getComputedStyle(document.documentElement)) {
  const color = (name) => (name.startsWith("var(") ? style.getPropertyValue(name.slice(4, -1)).trim() : name);
  context.fillStyle = color("var(--grid)");
  view.rows.forEach((_, row) => context.fillRect(box.left, box.top + (row + 1) * box.row - 2, box.width, 1));
  // A strip that is drawn out costs the same however many stretches there are.
  const columns = Math.max(Math.round(box.width * context.getTransform().a), 1);
  context.imageSmoothingEnabled = false;
  for (const lane of view.lanes) {
    const strip = stripOf(laneCover(lane, from, to, columns, LEAST[lane.name]), color(lane.color));
    context.drawImage(strip, box.left, box.top + lane.row * box.row + 2, box.width, box.row - 4);
  }
}

/** The stretch of a row that holds a moment, of the lane drawn on top; null where there is none. */
export function stretchAt(view, row, time) {
  for (const lane of [...view.lanes].reverse()) {
    if (lane.row !== row) continue;
    const at = lastNotAbove(lane.starts, time);
    if (at >= 0 && time < lane.ends[at]) return { lane, start: lane.starts[at], end: lane.ends[at] };
  }
  return null;
}

/** What the pointer reads on a row: the stretch there, how long it is, and what the whole lane adds up to. */
export function laneReading(view, row, time, head) {
  const found = stretchAt(view, row, time);
  if (found === null) return [head, element("div", { class: "muted" }, `${view.rows[row]}: nothing then`)];
  const { lane, start, end } = found;
  const line = element("tr", { "data-label": lane.name }, element("td", {}, swatch(lane.color, false)), element("td", {}, lane.label), element("td", { class: "number strong" }, formatNs(Math.round(end - start))));
  return [head, element("table", {}, element("tbody", {}, line)), element("div", { class: "muted lane-total" }, `in all ${lane.total}`)];
}

/** Keys of the colours that rows do not tell: a row of two kinds. */
export function laneKeys(view) {
  const shared = view.lanes.filter((lane) => view.lanes.some((other) => other !== lane && other.row === lane.row));
  return shared.map((lane) => element("span", { class: "key" }, swatch(lane.color, false), lane.label));
}
