// The whole run in one small picture on the overview: bytes by category over time, as high as they are, and the peak.

import { element } from "./dom.js";
import { resolveArray } from "./figures.js";
import { mapColors } from "./theme.js";

const HEIGHT = 132;

/** The picture of one rank; null without a history. `draw()` draws it for the theme in force. */
export function glance(app, rank) {
  if (rank.timeline === null) return { node: null, draw: () => {} };
  const canvas = element("canvas", { class: "glance-picture", "aria-label": "bytes in use over time, by category", role: "img" });
  const open = (event) => {
    event.preventDefault();
    app.go("timeline");
  };
  const node = element("a", { class: "glance panel", id: "glance", href: "#view=timeline", title: "to the timeline", onclick: open }, canvas);
  return { node, draw: () => paint(canvas, app.payload, rank.timeline) };
}

function paint(canvas, payload, timeline) {
  const ratio = devicePixelRatio;
  const [width, height] = [canvas.clientWidth, HEIGHT];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const places = resolveArray(payload, timeline.axis === "wall" ? timeline.seconds : timeline.events);
  const columns = columnsOf(places, timeline.categories.map((one) => resolveArray(payload, one.array)), Math.max(Math.round(width), 1));
  const top = Math.max(...columns.map((column) => (column ? column.reduce((sum, bytes) => sum + bytes, 0) : 0)), 1);
  const colors = mapColors();
  columns.forEach((column, x) => {
    let y = height;
    column?.forEach((bytes, index) => {
      const high = (bytes / top) * (height - 4);
      context.fillStyle = timeline.categories[index].color;
      context.fillRect(x, y - high, 1.02, high);
      y -= high;
    });
  });
  context.fillStyle = colors.line;
  context.fillRect(0, height - 1, width, 1);
}

/** For each column of pixels the bytes by category at the moment of the most bytes that it covers; null where nothing is known. */
export function columnsOf(places, series, width) {
  const [first, last] = [places[0], places[places.length - 1]];
  const columns = new Array(width).fill(null);
  const best = new Float64Array(width).fill(-1);
  let before = null;
  let reached = 0;
  for (let at = 0; at < places.length; at += 1) {
    const column = last > first ? Math.min(Math.floor(((places[at] - first) / (last - first)) * width), width - 1) : 0;
    // What held before holds up to here.
    for (; reached < column; reached += 1) columns[reached] ??= before;
    const values = series.map((array) => array[at]);
    before = values.some(Number.isNaN) ? null : values;
    const sum = before === null ? -1 : before.reduce((total, bytes) => total + bytes, 0);
    if (sum > best[column]) {
      best[column] = sum;
      columns[column] = before;
    }
  }
  return columns;
}
