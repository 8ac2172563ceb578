// A chart of memory over time, of which timeline and map are the two kinds: surface, camera, gestures, keys, selection.
//
// What is drawn inside is the layer's: `raster(frame, moments, width, height, ids)`, `inks()`, `top()` of the vertical axis,
// `reading(place, moment)`, `pick(place, moment)`, `rows(from, to)` (the allocations drawn in a box; null for bands).

import { openChart } from "./around.js";
import { axisExtent, confined, isTimed } from "./camera.js";
import { element } from "./dom.js";
import { formatBytes, formatSeconds } from "./format.js";
import { cameraOfKey, listen, listenStill } from "./gestures.js";
import { secondOfPlace } from "./folds.js";
import { selectionPanel } from "./selection.js";
import { gapTextAt } from "./stepsdraw.js";
import { newSurface, pictureOf, TIME_ROW } from "./surface.js";
import { saveBlob } from "./save.js";
import { laneReading, openLanes } from "./timelanes.js";
import { mapColors } from "./theme.js";

const HEADROOM = 1.06;

/** A chart; `part` names it ("timeline" or "map"), `series` are the thinned levels for its lines. */
export function newChart(app, { part, label, data, categories, series, height, layer }) {
  const surface = newSurface(app.state.painter, layer.raster, { id: `${part}-surface`, "aria-label": label, ...(layer.still ? { role: "img", tabindex: null } : {}) });
  const rank = app.rank();
  const self = { app, part, data, categories, series, layer, surface, height, around: openChart(rank.chart, data), time: openLanes(app.payload, rank.time), colors: null, pending: 0, measured: null, selecting: false, ratio: devicePixelRatio };
  self.reading = element("div", { class: "reading", role: "status", hidden: true });
  self.selected = element("div", { class: "panel selection", id: `${part}-selection`, hidden: true });
  self.stage = element("div", { class: "map-stage" }, surface.node, self.reading);
  if (layer.still) listenStill(surface.node, gesturesOf(self));
  else listen(surface.node, gesturesOf(self));
  new ResizeObserver(() => surface.node.clientWidth && self.camera && drawChart(self)).observe(surface.node);
  return Object.assign(self, {
    restore: () => restoreChart(self),
    recolor: () => recolorChart(self),
    updateInks: () => surface.painter.setInks(layer.inks()),
    redraw: () => drawChart(self),
    repaint: () => surface.repaint(frameOf(self)),
    moveTo: (camera) => moveChart(self, camera),
    /** Move at once, for tests and measurements. */
    jumpTo: (camera) => { self.camera = confined(camera, limitsOf(self)); drawChart(self); },
    /** All of it, or back to the steps. */
    fit: () => fitChart(self),
    limits: () => limitsOf(self),
    relay: () => { app.state.camera = null; restoreChart(self); app.save(); },
    key: (event) => keyOfChart(self, event),
    where: (place) => self.around.where(app.state.axis, place),
    save: () => { drawChart(self); pictureOf(surface, self.colors.panelText).toBlob((blob) => saveBlob(blob, `memtrace-${part}.png`)); },
  });
}

function limitsOf({ app, data, layer }) {
  const [x0, x1] = axisExtent(data, app.state.axis);
  return { x0, x1, y0: 0, y1: Math.max(layer.top() * (layer.exactTop?.() ? 1 : HEADROOM), 1), minX: isTimed(data, app.state.axis) ? 1e-7 : 4, minY: 16 };
}

function homeOf(self) {
  const whole = limitsOf(self);
  const [x0, x1] = self.around.home(self.app.state.axis);
  return { x0, x1, y0: whole.y0, y1: whole.y1 };
}

const EDGES = ["x0", "x1", "y0", "y1"];
const isSame = (one, other) => EDGES.every((edge) => Math.abs(one[edge] - other[edge]) <= 1e-9 * Math.max(Math.abs(one[edge]), 1));

function restoreChart(self) {
  makeRoom(self);
  const { camera } = self.app.state;
  self.camera = camera && !self.layer.still ? confined(camera, limitsOf(self)) : homeOf(self);
  recolorChart(self);
}

// Rows of time are added below: the memory keeps its height.
function makeRoom({ app, surface, time, data, around, height, stage }) {
  surface.hasLanes = around.lanes(app.state.axis).length > 0;
  surface.timeRows = time && isTimed(data, app.state.axis) ? time.rows.length : 0;
  surface.flat = data.order.length === 0;
  stage.parentElement?.style.setProperty("--map-height", `${(surface.flat ? 36 + surface.timeTop() : height) + surface.timeRows * TIME_ROW}px`);
}

function frameOf(self) {
  const { app, data, categories, series, around, camera, colors, measured, ratio, layer, surface } = self;
  const { axis, layout, moment } = app.state;
  const inSeconds = isTimed(data, axis);
  const { width } = surface.plot();
  const steps = { apart: around.apart(axis, camera, width), grain: around.grain(axis, camera, width) };
  return { data, categories, series, around, camera, axis, colors, measured, ratio, inSeconds, layout: layer.layout ?? layout, moment: app.state.at === "moment" ? moment : null, time: surface.timeRows ? self.time : null, ...steps, ...(layer.more?.(camera) ?? {}) };
}

function drawChart(self) {
  self.ratio = devicePixelRatio;
  self.surface.draw(frameOf(self));
  self.app.root.dataset[self.part] = "ready";
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
      if (devicePixelRatio > 1) drawChart(self);
      self.app.save();
    }, 140);
  });
}

function recolorChart(self) {
  self.colors = mapColors();
  self.surface.painter.setColors(self.colors.rgb);
  self.surface.painter.setInks(self.layer.inks());
  drawChart(self);
}

function moveChart(self, camera) {
  self.camera = confined(camera, limitsOf(self));
  self.app.state.camera = isSame(self.camera, homeOf(self)) ? null : self.camera;
  drawSoon(self);
}

function fitChart(self) {
  const whole = limitsOf(self);
  moveChart(self, isSame(self.camera, whole) ? homeOf(self) : whole);
}

function gesturesOf(self) {
  const { surface, layer } = self;
  return {
    camera: () => self.camera,
    plot: () => surface.plot(),
    selects: () => self.selecting,
    moveTo: (camera) => moveChart(self, camera),
    fit: () => fitChart(self),
    hover: (place) => readChart(self, place),
    pick: (place) => layer.pick(place, surface.momentAtX(place.x)),
    select: (from, to, isDone) => selectBox(self, from, to, isDone),
  };
}

function selectBox(self, from, to, isDone) {
  self.measured = from && to ? measuredText(self, from, to) : null;
  if (!self.measured) self.selected.hidden = true;
  self.surface.drawOver(frameOf(self));
  if (!self.measured || !isDone || self.surface.flat) return;
  const { camera, app, data } = self;
  const share = (one) => camera.x0 + Math.min(Math.max(one, 0), 1) * (camera.x1 - camera.x0);
  const stretch = [share(Math.min(from.shareX, to.shareX)), share(Math.max(from.shareX, to.shareX))];
  const close = () => selectBox(self, null);
  const zoom = () => {
    close();
    moveChart(self, { ...self.camera, x0: stretch[0], x1: stretch[1] });
  };
  self.selected.replaceChildren(...selectionPanel(data, self.categories, app.state.axis, isTimed(data, app.state.axis), stretch, self.layer.rows?.(from, to) ?? null, { close, zoom, show: (moment) => app.showMoment(moment) }));
  self.selected.hidden = false;
}

function measuredText(self, from, to) {
  const { camera, app, data } = self;
  const at = (share) => camera.x0 + share * (camera.x1 - camera.x0);
  const inSeconds = isTimed(data, app.state.axis);
  const clock = (share) => (inSeconds ? secondOfPlace(data.folds, at(share)) : at(share));
  const dx = Math.abs(clock(to.shareX) - clock(from.shareX));
  const dy = Math.abs(to.shareY - from.shareY) * (camera.y1 - camera.y0);
  const across = inSeconds ? formatSeconds(dx) : `${Math.round(dx).toLocaleString("en-US")} events`;
  return { x0: from.x, y0: from.y, x1: to.x, y1: to.y, text: `${across} · ${formatBytes(Math.round(dy))}` };
}

function keyOfChart(self, event) {
  const moved = cameraOfKey(event.key, self.camera);
  if (moved !== null) return moveChart(self, moved), true;
  if (event.key === "0") return fitChart(self), true;
  if (event.key === "Escape" && self.measured) return selectBox(self, null), true;
  return false;
}

/** Show what is at a place of the surface, or hide the reading where the place is null or outside. */
function readChart(self, place) {
  const { reading, surface, layer } = self;
  const row = place === null ? -1 : surface.timeRowAt(place);
  const isInside = place !== null && place.shareX >= 0 && place.shareX <= 1 && (row >= 0 || (!surface.flat && place.shareY >= 0 && place.shareY <= 1));
  reading.hidden = !isInside;
  if (!isInside) return;
  const moment = surface.momentAtX(place.x);
  const x = self.camera.x0 + place.shareX * (self.camera.x1 - self.camera.x0);
  const gap = gapTextAt(frameOf(self), x);
  const nodes = row >= 0 ? timeReadingAt(self, row, x) : gap !== null || moment < 0 ? [element("div", { class: "muted" }, gap ?? "not recorded here")] : layer.reading(place, moment);
  reading.replaceChildren(...nodes);
  const box = surface.node.getBoundingClientRect();
  const beyond = place.x + 24 + reading.offsetWidth > box.width;
  reading.style.left = `${Math.max(beyond ? place.x - reading.offsetWidth - 16 : place.x + 16, 0)}px`;
  reading.style.top = `${Math.max(8, Math.min(place.y - 40, box.height - reading.offsetHeight - 8))}px`;
}

function timeReadingAt(self, row, x) {
  const second = secondOfPlace(self.data.folds, x);
  const where = self.where(x);
  const head = element("div", { class: "reading-head" }, element("span", {}, formatSeconds(second)), where && element("span", { class: "muted" }, where));
  return laneReading(self.time, row, second * 1e9, head);
}
