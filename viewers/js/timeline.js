// The timeline: the figure, the switch between its two axes, and the reading at the pointer.

import { element, section, swatch } from "./dom.js";
import { draw, resolveArray, savePicture } from "./figures.js";
import { formatBytes, formatSeconds } from "./format.js";
import { momentText } from "./details.js";
import { shownMoment } from "./moments.js";
import { lastNotAbove, momentAt } from "./camera.js";
import { laneKeys, laneReading, openLanes, paintLanes } from "./timelanes.js";
import { headlineFrame, liveAt, nameOf, operationOf, shortFrame } from "./rows.js";

const AXES = { wall: "wall clock", event: "events" };

const LARGEST = 12;

/** The view of one rank: the timeline, and below it the moment that was clicked. */
export function newTimelineView(app, rank) {
  const below = element("div", { id: "at-moment" });
  // The map also knows where a moment is on both axes, and in which module memory was last asked for.
  let known = null;
  const showBelow = () => (rank.map && app.state.at === "moment" ? app.withMap(below, (data, view) => below.replaceChildren(atMoment(app, data, view))) : below.replaceChildren());
  const hooks = {
    clicked: (place) => app.withMap(below, (data) => app.showMoment(momentOfPlace(app, data, place))),
    mark: () => (known && app.state.at === "moment" && app.state.moment !== null ? placeOnAxis(app, known.data, app.state.moment) : null),
    module: (place) => known && lastModule(known, momentOfPlace(app, known.data, place)),
  };
  const timeline = timelineSection(app, rank, hooks);
  const learn = () => rank.map && app.withMap(element("div"), (data, view) => { known = { data, view }; });
  return {
    nodes: [timeline.node, below],
    draw: () => timeline.draw().then(learn).then(() => (app.state.at === "moment" ? Promise.all([timeline.draw(), showBelow()]) : null)),
    recolor: timeline.draw,
    moment: () => { timeline.draw(); showBelow(); },
    key: (event) => ({ a: timeline.toggleAxis, 0: timeline.resetZoom })[event.key]?.() !== undefined,
  };
}

// The axis of events counts rows of the events table; the map counts moments of its device.
function momentOfPlace(app, data, place) {
  const moment = app.state.axis === "event" ? lastNotAbove(data.event, place + 1) : momentAt(data, "wall", place);
  return Math.max(moment, 0);
}

function placeOnAxis(app, data, moment) {
  return app.state.axis === "event" ? data.event[moment] - 1 : data.seconds?.[moment] ?? null;
}

function lastModule({ data, view }, moment) {
  const row = lastNotAbove(data.start, moment);
  return row >= 0 && data.module[row] ? view.modules[data.module[row] - 1] : null;
}

function atMoment(app, data, view) {
  const moment = shownMoment(app, data, view);
  const rows = liveAt(data, moment).sort((one, other) => data.size[other] - data.size[one]);
  const largest = rows.slice(0, LARGEST).map((row) => {
    const category = view.categories[data.category[row]];
    const frame = headlineFrame(data, view, row);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, swatch(category.color, category.hatched), nameOf(data, view, row) ?? category.label),
      element("td", { class: "number strong" }, formatBytes(data.size[row])),
      element("td", { class: "mono" }, data.module[row] ? view.modules[data.module[row] - 1] : ""),
      element("td", { class: "mono muted" }, frame < 0 ? operationOf(data, view, row) : shortFrame(view.frames[frame])),
      element("td", {}, element("button", { type: "button", class: "quiet", onclick: () => { app.state.row = row; app.go("map"); } }, "On the map")),
    );
  });
  const open = (name, label) => element("button", { type: "button", class: "quiet", onclick: () => app.go(name) }, label);
  return section(
    "moment-section",
    `${formatBytes(data.level[moment])} in use then`,
    `${momentText(data, view, moment)}. The largest of ${rows.length.toLocaleString("en-US")} allocations:`,
    element("div", { class: "panel" }, element("div", { class: "toolbar" }, open("peak", "All of it, by category and module"), open("segments", "The allocator's segments then"), open("map", "On the map"), element("button", { type: "button", class: "quiet", onclick: () => app.showMoment(null) }, "Back to the peak")), element("div", { class: "scroll" }, element("table", { id: "moment-table" }, element("tbody", {}, largest)))),
  );
}

/** The section of the timeline. `draw()` draws it for the theme in force; `hooks` hear clicks, and tell mark and module. */
function timelineSection(app, rank, hooks) {
  const { payload, state: shown } = app;
  const lanes = openLanes(payload, rank.time);
  const view = rank.timeline ?? (lanes && timeAlone(lanes));
  if (view === null) return { node: missing(rank), draw: () => Promise.resolve(), toggleAxis: () => {}, resetZoom: () => {} };
  const state = {
    hidden: new Set(),
    get axis() { return rank.timeline ? shown.axis : "wall"; },
    set axis(value) {
      shown.axis = value;
      shown.camera = shown.span = null;
      app.save();
    },
  };
  const plot = element("div", { class: "plot", id: "timeline-plot" });
  const over = element("canvas", { class: "time-lanes", id: "time-lanes", hidden: true });
  const reading = element("div", { class: "reading", role: "status", hidden: true });
  const buttons = axisButtons(state, () => redraw());
  const redraw = () => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.axis === state.axis)));
    return draw(plot, payload, withSpan(withMark(withHidden(view.figures[state.axis], state.hidden), hooks.mark()), shown.span)).then(keepSpan);
  };
  const drawLanes = () => paintTimeRows(over, plot, state.axis === "wall" ? lanes : null);
  // The stretch that was zoomed to is part of the link.
  const whole = () => view.figures[state.axis].layout.xaxis.range;
  const keepSpan = () => {
    drawLanes();
    plot.removeAllListeners?.("plotly_afterplot");
    plot.on("plotly_afterplot", drawLanes);
    plot.removeAllListeners?.("plotly_relayout");
    plot.on("plotly_relayout", () => {
      const range = plot._fullLayout.xaxis.range;
      shown.span = range[0] === whole()[0] && range[1] === whole()[1] ? null : [...range];
      app.save();
    });
  };
  const resetZoom = () => Plotly.relayout(plot, { "xaxis.range": [...view.figures[state.axis].layout.xaxis.range] });
  const toolbar = element(
    "div",
    { class: "toolbar" },
    legend(view, state, redraw, lanes),
    element(
      "div",
      { class: "tools" },
      rank.timeline && element("div", { class: "switch", role: "group", "aria-label": "horizontal axis" }, buttons),
      element("button", { type: "button", class: "quiet", onclick: resetZoom }, "Reset zoom"),
      element("button", { type: "button", class: "quiet", onclick: () => savePicture(plot, "memtrace-timeline", over) }, "Save PNG"),
    ),
  );
  const frame = element("div", { class: "plot-frame" }, plot, over, reading);
  followPointer(frame, plot, reading, (place, row) => (row === null ? readingAt(payload, view, state.axis, place, hooks.module(place)) : laneReading(lanes, row, place * 1e9, readingHead(view, state.axis, place))));
  hearClicks(frame, plot, (place) => rank.map && hooks.clicked(place));
  const node = section("timeline", "Over time", leadOf(rank, lanes), element("div", { class: "panel" }, toolbar, frame));
  const toggleAxis = () => {
    if (!rank.timeline) return null;
    state.axis = state.axis === "wall" ? "event" : "wall";
    return redraw();
  };
  return { node, draw: redraw, toggleAxis, resetZoom };
}

function leadOf(rank, lanes) {
  if (!rank.timeline) return "No memory was recorded; this is what the GPU did. Drag across to zoom, double-click to go back.";
  const below = lanes ? " Below, on the same axis by wall clock: what the GPU did, and when the program waited." : "";
  return `Bytes in use, stacked by what they are for. Drag across to zoom, double-click to go back; click a moment to see what was live then.${below}`;
}

// A rank of which only time was recorded, as a timeline without any memory.
function timeAlone(lanes) {
  const figures = { wall: lanes.figure, event: lanes.figure };
  return { figures, categories: [], allocated: null, reserved: null, lanes: { wall: { step: lanes.steps, phase: [] } } };
}

// The canvas lies over the room that the figure leaves, wherever that is after a zoom or a change of width.
function paintTimeRows(canvas, plot, lanes) {
  const { xaxis, yaxis3 } = plot._fullLayout;
  canvas.hidden = !lanes || !yaxis3;
  if (canvas.hidden) return;
  const ratio = devicePixelRatio;
  const [width, height] = [xaxis._length, yaxis3._length];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  Object.assign(canvas.style, { left: `${xaxis._offset}px`, top: `${yaxis3._offset}px`, width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const [from, to] = xaxis.range.map((seconds) => seconds * 1e9);
  paintLanes(context, lanes, { left: 0, top: 0, width, row: height / lanes.rows.length }, from, to);
}

function missing(rank) {
  if (rank.left_out) return section("timeline", "Over time", null, element("div", { class: "panel empty" }, rank.left_out));
  const text =
    "This trace has no history: it holds the state of the memory at one moment, so nothing can be drawn over time. " +
    "To see a timeline, record the run: memtrace record -- python train.py";
  return section("timeline", "Over time", null, element("div", { class: "panel empty" }, text));
}

function axisButtons(state, redraw) {
  return Object.entries(AXES).map(([axis, label]) =>
    element("button", { type: "button", "data-axis": axis, onclick: () => { state.axis = axis; redraw(); } }, label),
  );
}

function legend(view, state, redraw, lanes) {
  const keys = [...view.categories].reverse().map((series) => {
    const hatched = series.category === "unknown";
    const toggle = (event) => {
      if (!state.hidden.delete(series.category)) state.hidden.add(series.category);
      event.currentTarget.setAttribute("aria-pressed", String(!state.hidden.has(series.category)));
      redraw();
    };
    return element("button", { type: "button", class: "key", "aria-pressed": "true", title: "show or hide", onclick: toggle }, swatch(series.color, hatched), series.label);
  });
  const lines = [
    view.figures.wall.data.some((trace) => trace.meta === "allocated") && element("span", { class: "key line" }, element("span", { class: "stroke" }), "allocated"),
    view.reserved && element("span", { class: "key line" }, element("span", { class: "stroke dashed" }), "reserved"),
    view.figures.wall.data.some((trace) => trace.meta === "device") && element("span", { class: "key line" }, element("span", { class: "diamond" }, "◇"), "device, all processes, at step ends"),
  ];
  return element("div", { class: "legend" }, keys, lines, lanes && laneKeys(lanes));
}

function withHidden(figure, hidden) {
  const data = figure.data.map((trace) => (hidden.has(trace.meta) ? { ...trace, visible: false } : trace));
  return { ...figure, data };
}

function withSpan(figure, span) {
  if (span === null) return figure;
  const { layout } = figure;
  return { ...figure, layout: { ...layout, xaxis: { ...layout.xaxis, range: [...span] } } };
}

// The moment that the rest of the page shows.
function withMark(figure, place) {
  if (place === null) return figure;
  const line = { type: "line", xref: "x", yref: "y domain", x0: place, x1: place, y0: 0, y1: 1, line: { color: "var(--accent)", width: 1.6, dash: "dash" } };
  return { ...figure, layout: { ...figure.layout, shapes: [...figure.layout.shapes, line] } };
}

// The reading is our own: plotly's formats know no binary units, and its nearest point may lie across a gap. It shows the
// values that hold at the pointer, which are those of the last event at or before it.
function followPointer(frame, plot, reading, readAt) {
  const hide = () => { reading.hidden = true; };
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("pointerdown", hide);
  frame.addEventListener("pointermove", (event) => {
    const axis = plot._fullLayout?.xaxis;
    if (!axis || event.buttons) return hide();
    const box = plot.getBoundingClientRect();
    const left = event.clientX - box.left;
    const place = axis.p2c(left - axis._offset);
    if (left < axis._offset || left > axis._offset + axis._length) return hide();
    reading.replaceChildren(...readAt(place, timeRowAt(plot, event.clientY - box.top)));
    reading.hidden = false;
    const beyond = left + 24 + reading.offsetWidth > box.width;
    reading.style.left = `${beyond ? left - reading.offsetWidth - 16 : left + 16}px`;
    reading.style.top = `${Math.max(8, Math.min(event.clientY - box.top - 40, box.height - reading.offsetHeight - 8))}px`;
  });
}

// The row of time under the pointer; null over the memory.
function timeRowAt(plot, y) {
  const axis = plot._fullLayout.yaxis3;
  if (!axis || y < axis._offset || y >= axis._offset + axis._length) return null;
  return Math.floor(((y - axis._offset) / axis._length) * axis.tickvals.length);
}

// A click is a press without a move; plotly keeps drags to itself.
function hearClicks(frame, plot, clicked) {
  let from = null;
  frame.addEventListener("pointerdown", (event) => { from = event; }, true);
  frame.addEventListener("click", (event) => {
    const axis = plot._fullLayout?.xaxis;
    if (!axis || from === null || Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > 3) return;
    const left = event.clientX - plot.getBoundingClientRect().left - axis._offset;
    if (left >= 0 && left <= axis._length) clicked(axis.p2c(left));
  }, true);
}

/** What the pointer shows at a place of an axis. */
function readingAt(payload, view, axis, place, module) {
  const head = readingHead(view, axis, place);
  if (!view.seconds) return [head];
  const places = resolveArray(payload, axis === "wall" ? view.seconds : view.events);
  const index = lastNotAbove(places, place);
  const first = view.categories.length ? resolveArray(payload, view.categories[0].array) : [];
  if (index < 0 || Number.isNaN(first[index])) return [head, element("div", { class: "muted" }, "not recorded here")];
  const rows = [];
  for (const series of [...view.categories].reverse()) {
    const bytes = resolveArray(payload, series.array)[index];
    if (bytes) rows.push(readingRow(swatch(series.color, series.category === "unknown"), series.label, bytes));
  }
  const lines = [["allocated", view.allocated], ["reserved", view.reserved]]
    .filter(([, reference]) => reference !== null)
    .map(([label, reference]) => readingRow("", label, resolveArray(payload, reference)[index], "total"));
  return [head, element("table", {}, element("tbody", {}, lines, rows)), module && element("div", { class: "muted mono" }, `in ${module}`)].filter(Boolean);
}

/** The first line of a reading: when, and in which step and phase. */
function readingHead(view, axis, place) {
  const when = axis === "wall" ? formatSeconds(place) : `event ${Math.round(Math.max(place, 0)).toLocaleString("en-US")}`;
  const where = ["step", "phase"].map((lane) => innermost(view.lanes[axis][lane], place)).filter(Boolean).join(" · ");
  return element("div", { class: "reading-head" }, element("span", {}, when), where && element("span", { class: "muted" }, where));
}

function readingRow(mark, label, bytes, kind = "") {
  return element("tr", { class: kind, "data-label": label }, element("td", {}, mark), element("td", {}, label), element("td", { class: "number" }, formatBytes(bytes)));
}

// Spans are sorted by start and nest: the last one that holds the place is the innermost.
function innermost(spans, place) {
  const holding = spans.filter(([start, end]) => start <= place && place <= end);
  return holding.length ? holding[holding.length - 1][2] : null;
}
