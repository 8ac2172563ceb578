// The view of all allocations: surface, tools, legend and details put together. What is shown is in `app.state`.

import { axisExtent, confined, placeOfMoment } from "./camera.js";
import { detailsPanel, detailsText, stretchOf } from "./details.js";
import { element } from "./dom.js";
import { formatBytes } from "./format.js";
import { cameraOfKey, listen } from "./gestures.js";
import { highestMoment } from "./mapdata.js";
import { buildInks } from "./inks.js";
import { readMap } from "./mapreading.js";
import { drawMapLegend, mapTools } from "./maptools.js";
import { bottomOf } from "./stacked.js";
import { countChosen, sameStack, searched } from "./rows.js";
import { secondsText } from "./rulers.js";
import { TIME_ROW, newSurface } from "./surface.js";
import { openLanes } from "./timelanes.js";
import { mapColors } from "./theme.js";
import { copyText } from "./save.js";

const MAP_HEIGHT = 560;

/** The map of one rank, once its arrays are there. */
export function mapView(app, data, view) {
  const surface = newSurface(app.state.painter);
  const self = { app, data, view, surface, chosen: null, colors: null, pending: 0, measured: null, time: openLanes(app.payload, app.rank().time), ratio: devicePixelRatio };
  const reading = element("div", { class: "reading", role: "status", hidden: true });
  const side = element("aside", { class: "map-side panel", id: "map-details" });
  const legend = element("div", { class: "map-legend", id: "map-legend" });
  const found = element("span", { class: "muted", id: "map-found", role: "status" });
  const search = element("input", { type: "search", id: "map-search", placeholder: "search name, stack, module, >64MiB", "aria-label": "search allocations", oninput: () => applySearch(self, search.value) });
  Object.assign(self, { reading, side, legend, found, search });
  const relaid = () => {
    app.state.camera = null;
    restore(self);
    app.save();
  };
  const recolored = () => {
    recolor(self);
    app.save();
  };
  const tools = mapTools(self, { relaid, recolored, fit: () => fit(self), redraw: () => drawMap(self) });
  self.node = element("div", { class: "map" }, tools.node, element("div", { class: "map-body" }, element("div", { class: "map-stage" }, surface.node, reading), side), legend);
  self.tools = tools;
  listen(surface.node, gesturesOf(self));
  new ResizeObserver(() => surface.node.clientWidth && self.camera && drawMap(self)).observe(surface.node);
  return {
    node: self.node,
    show: () => restore(self),
    recolor: () => recolor(self),
    key: (event) => onMapKey(self, event),
    /** For tests and measurements. */
    probe: {
      painter: surface.painter.kind,
      drawn: surface.drawn,
      camera: () => self.camera,
      moveTo: (camera) => { self.camera = confined(camera, limits(self)); drawMap(self); },
      pickCenter: (row) => pickCenter(self, row),
      paint: () => surface.painter.draw(surface.drawn.ids, surface.drawn.width, surface.drawn.height),
      readPixel: (x, y) => surface.painter.readPixel(x, y),
      data,
    },
  };
}

function limits({ app, data, view }) {
  const [x0, x1] = axisExtent(data, app.state.axis);
  const range = view.ranges.at(-1);
  const top = app.state.layout === "address" ? range[1] + range[2] : Math.max(data.level[highestMoment(data, 0, data.numMoments - 1)], 1) * 1.06;
  return { x0, x1, y0: 0, y1: top, minX: app.state.axis === "event" ? 4 : 1e-7, minY: 16 };
}

function restore(self) {
  const { state } = self.app;
  makeRoom(self);
  const whole = limits(self);
  self.camera = state.camera ? confined(state.camera, whole) : { x0: whole.x0, x1: whole.x1, y0: whole.y0, y1: whole.y1 };
  self.search.value = state.q ?? "";
  self.tools.refresh();
  chooseBySearch(self, state.q ?? "");
  showDetails(self);
  recolor(self);
}

function frameOf(self) {
  const { app, data, view, camera, colors, measured } = self;
  const { axis, layout, moment } = app.state;
  const inSeconds = axis === "wall" && data.seconds !== null;
  return { data, view, camera, axis, layout, colors, measured, moment, ratio: self.ratio, inSeconds, time: inSeconds ? self.time : null };
}

// Rows of time are added below: the allocations keep their height.
function makeRoom(self) {
  const { app, surface, time, data, node } = self;
  surface.timeRows = time && app.state.axis === "wall" && data.seconds !== null ? time.rows.length : 0;
  node.style.setProperty("--map-height", `${MAP_HEIGHT + surface.timeRows * TIME_ROW}px`);
}

function drawMap(self) {
  self.ratio = devicePixelRatio;
  self.surface.draw(frameOf(self));
  self.app.root.dataset.map = "ready";
}

// While the camera moves, dense screens are drawn at one pixel a point; at rest, every pixel is exact.
function drawSoon(self) {
  if (self.pending) return;
  self.pending = requestAnimationFrame(() => {
    self.pending = 0;
    self.ratio = Math.min(devicePixelRatio, 1);
    self.surface.draw(frameOf(self));
    clearTimeout(self.settling);
    self.settling = setTimeout(() => {
      if (devicePixelRatio > 1) drawMap(self);
      self.app.save();
    }, 140);
  });
}

function recolor(self) {
  self.colors = mapColors();
  self.surface.painter.setColors(self.colors.rgb);
  updateInks(self);
  drawMapLegend(self);
  drawMap(self);
}

function updateInks(self) {
  self.surface.painter.setInks(buildInks(self.data, self.view, self.app.state.colour, self.chosen, self.app.state.row));
}

function moveTo(self, camera) {
  self.camera = confined(camera, limits(self));
  const whole = limits(self);
  const isWhole = ["x0", "x1", "y0", "y1"].every((edge) => self.camera[edge] === whole[edge]);
  self.app.state.camera = isWhole ? null : self.camera;
  drawSoon(self);
}

function fit(self) {
  moveTo(self, limits(self));
}

function gesturesOf(self) {
  const { surface, view } = self;
  return {
    camera: () => self.camera,
    plot: () => surface.plot(view),
    moveTo: (camera) => moveTo(self, camera),
    fit: () => fit(self),
    hover: (place) => readMap(self, place),
    pick: (place) => pick(self, rowAt(self, place.x, place.y)),
    measure(from, to) {
      self.measured = from && to ? measuredText(self, from, to) : null;
      surface.drawOver(frameOf(self));
    },
  };
}

function measuredText(self, from, to) {
  const { camera } = self;
  const dx = Math.abs(to.shareX - from.shareX) * (camera.x1 - camera.x0);
  const dy = Math.abs(to.shareY - from.shareY) * (camera.y1 - camera.y0);
  const inSeconds = self.app.state.axis === "wall" && self.data.seconds !== null;
  const across = inSeconds ? secondsText(dx, dx / 100) : `${Math.round(dx).toLocaleString("en-US")} events`;
  return { x0: from.x, y0: from.y, x1: to.x, y1: to.y, text: `${across} · ${formatBytes(Math.round(dy))}` };
}

/** The row drawn at a place; -1 for none. */
function rowAt(self, x, y) {
  const id = self.surface.idAt(x, y, self.view);
  return id > 0 && id <= self.data.count ? id - 1 : -1;
}

function pick(self, row) {
  self.app.state.row = row < 0 ? null : row;
  self.app.save();
  updateInks(self);
  showDetails(self);
  self.surface.repaint(frameOf(self));
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
  const line = (key, text) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, text));
  return [
    element("strong", {}, `${data.count.toLocaleString("en-US")} allocations`),
    element("p", { class: "muted" }, "Every one is drawn. A column of pixels shows the moment with the most bytes among those that it covers, and each pixel the allocation that lies there. Click one to see all that is known of it."),
    element("dl", { class: "keys" }, line("wheel", "zoom in time"), line("⇧ wheel", "zoom in bytes"), line("drag", "move"), line("⇧ drag", "measure"), line("/", "search"), line("0", "all of it")),
  ];
}

function zoomTo(self, row) {
  const { data, app } = self;
  const [x0, x1] = stretchOf(data, app.state.axis, row);
  const bottom = app.state.layout === "address" ? data.place[row] : bottomOf(data, row, data.start[row]);
  const margin = Math.max(data.size[row] * 1.5, 1024);
  moveTo(self, { x0, x1, y0: bottom - margin, y1: bottom + data.size[row] + margin });
}

/** Zoom so far that an allocation is some pixels wide and high, and tell what is picked in its middle. */
function pickCenter(self, row) {
  zoomTo(self, row);
  drawMap(self);
  const { data, camera, surface, view } = self;
  const { axis, layout } = self.app.state;
  const plot = surface.plot(view);
  const middle = (placeOfMoment(data, axis, data.start[row]) + placeOfMoment(data, axis, data.inUseEnd[row])) / 2;
  const x = plot.left + ((middle - camera.x0) / (camera.x1 - camera.x0)) * plot.width;
  // The column shows one moment, at which the strip may have sunk since the allocation began.
  const moment = surface.momentAtX(x, view);
  const bottom = layout === "address" ? data.place[row] : bottomOf(data, row, moment);
  const margin = Math.max(data.size[row], 8);
  moveTo(self, { ...camera, y0: bottom - margin, y1: bottom + data.size[row] + margin });
  drawMap(self);
  const { y0, y1 } = self.camera;
  return rowAt(self, x, plot.top + plot.height - ((bottom + data.size[row] / 2 - y0) / (y1 - y0)) * plot.height);
}

function applySearch(self, text) {
  self.app.state.q = text || null;
  chooseBySearch(self, text);
  updateInks(self);
  self.surface.repaint(frameOf(self));
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
  updateInks(self);
  self.surface.repaint(frameOf(self));
}

function tellChosen(self, why) {
  const { rows, bytes } = countChosen(self.data, self.chosen);
  self.found.textContent = `${rows.toLocaleString("en-US")} ${why}, ${formatBytes(bytes)} in all`;
}

function onMapKey(self, event) {
  const moved = cameraOfKey(event.key, self.camera);
  if (moved !== null) return moveTo(self, moved), true;
  if (event.key === "0") return fit(self), true;
  if (event.key === "a" || event.key === "l") return self.tools.next(event.key === "a" ? "axis" : "layout"), true;
  if (event.key === "/") return self.search.focus(), true;
  if (event.key === "Escape" && (self.chosen || self.app.state.row !== null)) {
    self.search.value = "";
    applySearch(self, "");
    pick(self, -1);
    return true;
  }
  return false;
}
