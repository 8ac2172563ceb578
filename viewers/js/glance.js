// The whole run in one picture on the overview: the timeline, small and still, from thinned levels that need no unpacking of
// all allocations. A click goes to the timeline.

import { bandInks, rasterBands } from "./bands.js";
import { bandReading } from "./bandreading.js";
import { newChart } from "./chart.js";
import { element, section } from "./dom.js";
import { dataOfSeries, loadSeries } from "./seriesload.js";
import { stretchOfColumn } from "./camera.js";

const GLANCE_HEIGHT = 250;

/** The picture of one rank; null without a history. */
export function glance(app, rank) {
  if (!rank.timeline || !rank.chart) return null;
  const frame = element("div", {});
  const open = element("a", { class: "to-timeline", href: "#view=timeline", onclick: (event) => { event.preventDefault(); app.go("timeline"); } }, "Open the timeline →");
  const view = { node: section("glance", "Over time", null, element("div", { class: "panel glance" }, frame, open)), recolor: () => {} };
  view.draw = () => loadSeries(rank.timeline).then((columns) => fillGlance(app, rank, view, frame, { ...columns, breaks: rank.timeline.breaks }));
  return view;
}

function fillGlance(app, rank, view, frame, series) {
  const data = dataOfSeries(rank.timeline, series);
  const { categories } = rank.timeline;
  const nothing = new Set();
  const layer = {
    layout: "bands",
    still: true,
    raster: (drawn, moments, width, height, ids) => rasterBands(data, moments, drawn.camera, width, height, ids, nothing),
    inks: () => bandInks(categories),
    top: () => rank.chart.top,
    reading(place, moment) {
      const { drawn } = chart.surface;
      const column = Math.min(Math.floor(place.shareX * drawn.width), drawn.width - 1);
      return bandReading({ data, categories, series, around: chart.around }, app.state.axis, moment, stretchOfColumn(chart.camera, drawn.width, column, null), null);
    },
    pick: () => app.go("timeline"),
  };
  const chart = newChart(app, { part: "glance", label: "bytes in use over time, by category", data, categories, series, height: GLANCE_HEIGHT, layer });
  frame.replaceChildren(chart.stage);
  chart.restore();
  globalThis.memtrace = { ...globalThis.memtrace, glance: { camera: () => chart.camera, plot: () => chart.surface.plot(), data } };
  view.recolor = chart.recolor;
}
