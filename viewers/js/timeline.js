// The timeline: the figure, the switch between its two axes, and the reading at the pointer.

import { element, section, swatch } from "./dom.js";
import { draw, resolveArray, savePicture } from "./figures.js";
import { formatBytes, formatSeconds } from "./format.js";

const AXES = { wall: "wall clock", event: "events" };

/** The section of the timeline of one rank. `draw()` draws it for the theme in force; `toggleAxis()` changes the axis. */
export function timelineSection(payload, rank) {
  const view = rank.timeline;
  if (view === null) return { node: missing(), draw: () => {}, toggleAxis: () => {}, resetZoom: () => {} };
  const state = { axis: view.axis, hidden: new Set() };
  const plot = element("div", { class: "plot", id: "timeline-plot" });
  const reading = element("div", { class: "reading", role: "status", hidden: true });
  const buttons = axisButtons(state, () => redraw());
  const redraw = () => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.axis === state.axis)));
    return draw(plot, payload, withHidden(view.figures[state.axis], state.hidden));
  };
  const resetZoom = () => Plotly.relayout(plot, { "xaxis.range": [...view.figures[state.axis].layout.xaxis.range] });
  const toolbar = element(
    "div",
    { class: "toolbar" },
    legend(view, state, redraw),
    element(
      "div",
      { class: "tools" },
      element("div", { class: "switch", role: "group", "aria-label": "horizontal axis" }, buttons),
      element("button", { type: "button", class: "quiet", onclick: resetZoom }, "Reset zoom"),
      element("button", { type: "button", class: "quiet", onclick: () => savePicture(plot, "memtrace-timeline") }, "Save PNG"),
    ),
  );
  const frame = element("div", { class: "plot-frame" }, plot, reading);
  followPointer(frame, plot, reading, payload, view, state);
  const lead = "Bytes in use, stacked by what they are for. Drag across to zoom, double-click to go back.";
  const node = section("timeline", "Over time", lead, element("div", { class: "panel" }, toolbar, frame));
  const toggleAxis = () => {
    state.axis = state.axis === "wall" ? "event" : "wall";
    return redraw();
  };
  return { node, draw: redraw, toggleAxis, resetZoom };
}

function missing() {
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

function legend(view, state, redraw) {
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
  ];
  return element("div", { class: "legend" }, keys, lines);
}

function withHidden(figure, hidden) {
  const data = figure.data.map((trace) => (hidden.has(trace.meta) ? { ...trace, visible: false } : trace));
  return { ...figure, data };
}

// The reading is our own: plotly's formats know no binary units, and its nearest point may lie across a gap. It shows the
// values that hold at the pointer, which are those of the last event at or before it.
function followPointer(frame, plot, reading, payload, view, state) {
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
    reading.replaceChildren(...readingAt(payload, view, state.axis, place));
    reading.hidden = false;
    const beyond = left + 24 + reading.offsetWidth > box.width;
    reading.style.left = `${beyond ? left - reading.offsetWidth - 16 : left + 16}px`;
    reading.style.top = `${Math.max(8, Math.min(event.clientY - box.top - 40, box.height - reading.offsetHeight - 8))}px`;
  });
}

/** What the pointer shows at a place of an axis. */
function readingAt(payload, view, axis, place) {
  const places = resolveArray(payload, axis === "wall" ? view.seconds : view.events);
  const index = lastAtOrBefore(places, place);
  const when = axis === "wall" ? formatSeconds(Math.max(place, 0)) : `event ${Math.round(Math.max(place, 0)).toLocaleString("en-US")}`;
  const where = ["step", "phase"].map((lane) => innermost(view.lanes[axis][lane], place)).filter(Boolean).join(" · ");
  const head = element("div", { class: "reading-head" }, element("span", {}, when), where && element("span", { class: "muted" }, where));
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
  return [head, element("table", {}, element("tbody", {}, lines, rows))];
}

function readingRow(mark, label, bytes, kind = "") {
  return element("tr", { class: kind, "data-label": label }, element("td", {}, mark), element("td", {}, label), element("td", { class: "number" }, formatBytes(bytes)));
}

/** Index of the last value at or below `place` in an ascending array, -1 if there is none. */
export function lastAtOrBefore(values, place) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= place) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Spans are sorted by start and nest: the last one that holds the place is the innermost.
function innermost(spans, place) {
  const holding = spans.filter(([start, end]) => start <= place && place <= end);
  return holding.length ? holding[holding.length - 1][2] : null;
}
