// The view of all allocations: chart, tools, legend and details put together. What is shown is in `app.state`.

import { placeOfMoment } from "./camera.js";
import { newChart } from "./chart.js";
import { rasterAddressed } from "./addressed.js";
import { detailsPanel, detailsText, stretchOf } from "./details.js";
import { element } from "./dom.js";
import { formatBytes } from "./format.js";
import { highestMoment } from "./levels.js";
import { buildInks } from "./inks.js";
import { mapReading } from "./mapreading.js";
import { drawMapLegend, mapTools } from "./maptools.js";
import { bottomOf, rasterStacked } from "./stacked.js";
import { countChosen, sameStack, searched } from "./rows.js";
import { copyText } from "./save.js";

const MAP_HEIGHT = 560;

/** The map of one rank, once its arrays are there; `series` are the thinned levels for its lines, or null. */
export function mapView(app, data, view, series) {
  const self = { app, data, view, chosen: null };
  const label = "map of all allocations; arrow keys move, plus and minus zoom, the details of a chosen one stand beside it";
  self.chart = newChart(app, { part: "map", label, data, categories: view.categories, series, height: MAP_HEIGHT, layer: mapLayer(self) });
  self.side = element("aside", { class: "map-side panel", id: "map-details", "aria-label": "details" });
  self.legend = element("div", { class: "map-legend", id: "map-legend" });
  self.found = element("span", { class: "muted", id: "map-found", role: "status" });
  self.search = element("input", { type: "search", id: "map-search", placeholder: "search name, stack, >64MiB", "aria-label": "search allocations", oninput: () => applySearch(self, self.search.value) });
  const recolored = () => {
    self.recolor();
    app.save();
  };
  const tools = mapTools(self, { relaid: self.chart.relay, recolored });
  self.tools = tools;
  self.recolor = () => {
    self.chart.recolor();
    drawMapLegend(self);
  };
  const { surface } = self.chart;
  return {
    node: element("div", { class: "map" }, tools.node, element("div", { class: "map-body" }, self.chart.stage, self.side), self.chart.selected, self.legend),
    show: () => showMap(self),
    recolor: self.recolor,
    key: (event) => onMapKey(self, event),
    /** For tests and measurements. */
    probe: {
      painter: surface.painter.kind,
      drawn: surface.drawn,
      camera: () => self.chart.camera,
      plot: () => surface.plot(),
      moveTo: self.chart.jumpTo,
      pickCenter: (row) => pickCenter(self, row),
      paint: () => surface.painter.draw(surface.drawn.ids, surface.drawn.width, surface.drawn.height),
      readPixel: (x, y) => surface.painter.readPixel(x, y),
      data,
    },
  };
}

function mapLayer(self) {
  const { app, data, view } = self;
  return {
    raster: (frame, moments, width, height, ids) => (app.state.layout === "address" ? rasterAddressed : rasterStacked)(data, moments, frame.camera, width, height, ids),
    inks: () => buildInks(data, view, app.state.colour, self.chosen, app.state.row),
    exactTop: () => app.state.layout === "address",
    top() {
      const range = view.ranges.at(-1);
      if (app.state.layout === "address") return range[1] + range[2];
      return Math.max(app.rank().chart?.top ?? 0, data.level[highestMoment(data, 0, data.numMoments - 1)]);
    },
    reading: (place, moment) => mapReading(self, moment, self.chart.surface.idAt(place.x, place.y)),
    pick: (place) => pick(self, rowAt(self, place.x, place.y)),
    rows: (from, to) => [...self.chart.surface.idsWithin(from, to)].filter((id) => id <= data.count).map((id) => id - 1),
  };
}

function showMap(self) {
  const { state } = self.app;
  self.search.value = state.q ?? "";
  self.tools.refresh();
  chooseBySearch(self, state.q ?? "");
  showDetails(self);
  self.chart.restore();
  drawMapLegend(self);
}

/** The row drawn at a place; -1 for none. */
function rowAt(self, x, y) {
  const id = self.chart.surface.idAt(x, y);
  return id > 0 && id <= self.data.count ? id - 1 : -1;
}

function pick(self, row) {
  self.app.state.row = row < 0 ? null : row;
  self.app.save();
  showDetails(self);
  repaintMap(self);
}

function repaintMap(self) {
  self.chart.updateInks();
  self.chart.repaint();
}

function showDetails(self) {
  const { app, data, view, side } = self;
  const row = app.state.row;
  if (row === null || row >= data.count) {
    side.replaceChildren(...howToRead(self));
    return;
  }
  side.replaceChildren(...detailsPanel(data, view, row, {
    close: () => pick(self, -1),
    sameStack: () => chooseRows(self, sameStack(data, row), "of the same stack"),
    zoomTo: () => zoomTo(self, row),
    showMoment: () => app.showMoment(data.start[row]),
    copy: () => copyText(detailsText(data, view, row)),
  }));
}

function howToRead(self) {
  const { data } = self;
  // Blocks that a recording begins with are no allocations of it, and each window of it lists them anew.
  const listed = data.initial.reduce((sum, one) => sum + one, 0);
  const before = listed > 0 && element("p", { class: "muted" }, `and ${listed.toLocaleString("en-US")} blocks that were there when a recording began`);
  const line = (key, text) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, text));
  return [
    element("strong", { id: "map-count" }, `${(data.count - listed).toLocaleString("en-US")} allocations`),
    before,
    element("p", { class: "muted" }, "Every one is drawn. A column of pixels shows the moment with the most bytes among those that it covers, and each pixel the allocation that lies there. Click one to see all that is known of it."),
    element("dl", { class: "keys" }, line("wheel", "zoom in time"), line("⇧ wheel", "zoom in bytes"), line("drag", "move"), line("⇧ drag", "select a box"), line("w a s d", "zoom and move"), line("/", "search"), line("0", "all of it")),
  ].filter(Boolean);
}

function zoomTo(self, row, act = self.chart.moveTo) {
  const { data, app } = self;
  const [x0, x1] = stretchOf(data, app.state.axis, row);
  const bottom = app.state.layout === "address" ? data.place[row] : bottomOf(data, row, data.start[row]);
  const margin = Math.max(data.size[row] * 1.5, 1024);
  act({ x0, x1, y0: bottom - margin, y1: bottom + data.size[row] + margin });
}

/** Zoom so far that an allocation is some pixels wide and high, and tell what is picked in its middle. */
function pickCenter(self, row) {
  zoomTo(self, row, self.chart.jumpTo);
  const { data, chart } = self;
  const { axis, layout } = self.app.state;
  const { camera, surface } = chart;
  const plot = surface.plot();
  const middle = (placeOfMoment(data, axis, data.start[row]) + placeOfMoment(data, axis, data.inUseEnd[row])) / 2;
  const x = plot.left + ((middle - camera.x0) / (camera.x1 - camera.x0)) * plot.width;
  // The column shows one moment, at which the strip may have sunk since the allocation began.
  const moment = surface.momentAtX(x);
  const bottom = layout === "address" ? data.place[row] : bottomOf(data, row, moment);
  const margin = Math.max(data.size[row], 8);
  chart.jumpTo({ ...camera, y0: bottom - margin, y1: bottom + data.size[row] + margin });
  const { y0, y1 } = chart.camera;
  return rowAt(self, x, plot.top + plot.height - ((bottom + data.size[row] / 2 - y0) / (y1 - y0)) * plot.height);
}

function applySearch(self, text) {
  self.app.state.q = text || null;
  chooseBySearch(self, text);
  repaintMap(self);
  self.app.save();
}

function chooseBySearch(self, text) {
  self.chosen = searched(self.data, self.view, text);
  self.found.textContent = "";
  if (self.chosen) tellChosen(self, "found");
}

function chooseRows(self, chosen, why) {
  self.chosen = chosen;
  tellChosen(self, why);
  repaintMap(self);
}

function tellChosen(self, why) {
  const { rows, bytes } = countChosen(self.data, self.chosen);
  self.found.textContent = `${rows.toLocaleString("en-US")} ${why}, ${formatBytes(bytes)} in all`;
}

function onMapKey(self, event) {
  if (event.key === "x" || event.key === "l") return self.tools.next(event.key === "x" ? "axis" : "layout"), true;
  if (event.key === "/") return self.search.focus(), true;
  if (self.chart.key(event)) return true;
  if (event.key === "Escape" && (self.chosen || self.app.state.row !== null)) {
    self.search.value = "";
    applySearch(self, "");
    pick(self, -1);
    return true;
  }
  return false;
}
