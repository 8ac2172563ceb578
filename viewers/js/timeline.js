// The timeline: bytes in use over time by category, drawn from every event. Below it stands what was live at a moment.

import { momentOfPlace } from "./around.js";
import { bandInks, lowestOfColumns, rasterBands } from "./bands.js";
import { bandReading } from "./bandreading.js";
import { stretchOfColumn } from "./camera.js";
import { newChart } from "./chart.js";
import { axisSwitch, chartTools } from "./maptools.js";
import { momentText } from "./details.js";
import { element, section, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { highestMoment } from "./levels.js";
import { shownMoment } from "./moments.js";
import { dataOfChosen } from "./found.js";
import { countChosen, headlineFrame, liveAt, nameOf, operationOf, searched } from "./rows.js";
import { dataOfNothing, dataOfSeries, loadSeries } from "./seriesload.js";
import { laneKeys } from "./timelanes.js";
import { lastNotAbove } from "./search.js";

const TIMELINE_HEIGHT = 460;
const LARGEST = 12;

/** The view of one rank. */
export function newTimelineView(app, rank) {
  const frame = element("div", { id: "timeline-frame" });
  const below = element("div", { id: "at-moment" });
  const lead = rank.timeline ? "Bytes in use, stacked by what they are for. Drag to move, wheel to zoom, shift-drag to select; click a moment to see what was live then." : "No memory was recorded; this is what the GPU did.";
  const nodes = [section("timeline", "Over time", rank.chart ? lead : null, element("div", { class: "panel" }, frame)), below];
  const view = { nodes };
  if (!rank.chart) {
    frame.replaceChildren(element("div", { class: "empty" }, rank.left_out ?? NO_HISTORY));
    return view;
  }
  view.draw = () => withTimelineData(app, rank, frame, (found) => fillTimeline(app, rank, view, frame, below, found));
  return view;
}

const NO_HISTORY =
  "This trace has no history: it holds the state of the memory at one moment, so nothing can be drawn over time. " +
  "To see a timeline, record the run: memtrace record -- python train.py";

// From every allocation where the page holds them, else from thinned levels, else from the lanes of time alone.
async function withTimelineData(app, rank, node, use) {
  const series = rank.timeline && { ...(await loadSeries(rank.timeline)), breaks: rank.timeline.breaks };
  if (rank.map && rank.timeline) return app.withMap(node, (data, map) => use({ data, map, categories: map.categories, series }));
  const data = rank.timeline ? dataOfSeries(rank.timeline, series) : dataOfNothing(rank.chart);
  return use({ data, map: null, categories: rank.timeline?.categories ?? [], series });
}

function fillTimeline(app, rank, view, frame, below, { data, map, categories, series }) {
  const hidden = new Set();
  const showBelow = () => map && below.replaceChildren(app.state.at === "moment" ? atMoment(app, data, map) : "");
  const top = rank.chart.top;
  const layer = {
    layout: "bands",
    raster: (drawn, moments, width, height, ids) => rasterBands(drawn.data, moments, drawn.camera, width, height, ids, hidden),
    inks: () => bandInks(categories),
    top: () => Math.max(top, data.level[highestMoment(data, 0, data.numMoments - 1)]),
    more: (camera) => ({ envelope: (moments, grain) => envelopeOf(chart.data, app.state.axis, camera, moments, grain, hidden) }),
    reading: (place, moment) => bandReading({ data: chart.data, categories, series, around: around() }, app.state.axis, moment, columnOf(chart, place), map && lastModule(data, map, moment)),
    pick: (place, moment) => map && moment >= 0 && app.showMoment(momentOfPlace(data, app.state.axis, placeAt(chart, place))),
  };
  const around = () => chart.around;
  const label = "bytes in use over time, by category; arrow keys move, plus and minus zoom";
  const chart = newChart(app, { part: "timeline", label, data, categories, series, height: TIMELINE_HEIGHT, layer });
  const axis = axisSwitch(app.state, data, chart.relay);
  const search = map && bandSearch(app, chart, data, map);
  const tools = element("div", { class: "tools" }, search?.found, search?.field, axis.node, chartTools(chart));
  frame.replaceChildren(element("div", { class: "toolbar" }, bandLegend(chart, hidden), tools), chart.stage, chart.selected);
  search?.apply(app.state.q ?? "");
  chart.restore();
  showBelow();
  globalThis.memtrace = { ...globalThis.memtrace, timeline: probeOf(chart, hidden) };
  Object.assign(view, {
    recolor: chart.recolor,
    moment: () => { chart.repaint(); showBelow(); },
    key(event) {
      if (event.key === "x") return axis.next(), true;
      if (event.key === "/" && search) return search.field.focus(), true;
      if (chart.key(event)) return true;
      return event.key === "Escape" && app.state.q ? (search?.clear(), true) : false;
    },
  });
}

/** For tests and measurements. */
function probeOf(chart, hidden) {
  return {
    get data() { return chart.data; },
    drawn: chart.surface.drawn,
    camera: () => chart.camera,
    moveTo: chart.jumpTo,
    plot: () => chart.surface.plot(),
    colors: () => chart.colors,
    lanes: (axis) => chart.around.lanes(axis),
    oom: (axis) => chart.around.oomPlace(axis),
    readPixel: (x, y) => chart.surface.painter.readPixel(x, y),
    hidden,
  };
}

// The picture shows the highest moment of each column: the envelope says how low it went meanwhile.
function envelopeOf(data, axis, camera, moments, grain, hidden) {
  if (hidden.size || !data.order.length) return null;
  const highest = Float64Array.from(moments, (moment) => (moment < 0 ? NaN : data.level[moment]));
  return { lowest: lowestOfColumns(data, axis, camera, moments, grain), highest };
}

function placeAt({ camera }, place) {
  return camera.x0 + place.shareX * (camera.x1 - camera.x0);
}

function columnOf(chart, place) {
  const { camera, surface, around, app } = chart;
  const width = Math.max(surface.drawn.width, 1);
  const column = Math.floor(Math.min(Math.max(place.shareX, 0), 1) * width);
  return stretchOfColumn(camera, width, column, around.grain(app.state.axis, camera, surface.plot().width));
}

// What a search finds is drawn alone: its bytes by category at each moment, and the highest of them in each column.
function bandSearch(app, chart, data, map) {
  const found = element("span", { class: "muted", id: "timeline-found", role: "status" });
  const apply = (text) => {
    const chosen = searched(data, map, text);
    chart.data = chosen ? dataOfChosen(data, chosen) : data;
    const { rows, bytes } = chosen ? countChosen(data, chosen) : {};
    found.textContent = chosen ? `${rows.toLocaleString("en-US")} found, ${formatBytes(bytes)} in all` : "";
    field.value = text;
  };
  const changed = (text) => {
    app.state.q = text || null;
    apply(text);
    chart.redraw();
    app.save();
  };
  const field = element("input", { type: "search", id: "timeline-search", placeholder: "search: only what is found", "aria-label": "search allocations", oninput: () => changed(field.value) });
  return { field, found, apply, clear: () => changed("") };
}

function lastModule(data, map, moment) {
  const row = lastNotAbove(data.start, moment);
  return row >= 0 && data.module[row] ? map.modules[data.module[row] - 1] : null;
}

function bandLegend(chart, hidden) {
  const { data, categories, series, around } = chart;
  const used = new Set(data.bands ? data.order : data.category);
  if (data.base.some(([, bytes]) => bytes)) used.add(data.unknownCategory);
  const keys = [...data.order].reverse().filter((place) => used.has(place)).map((place) => {
    const toggle = (event) => {
      if (!hidden.delete(place)) hidden.add(place);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(place)));
      chart.redraw();
    };
    const { color, hatched, label } = categories[place];
    return element("button", { type: "button", class: "key", "aria-pressed": "true", title: "show or hide", onclick: toggle }, swatch(color, hatched), label);
  });
  const line = (kind, text) => element("span", { class: "key line" }, element("span", { class: kind }), text);
  const lines = [
    series?.allocated && line("stroke", "allocated, with rounding"),
    series?.reserved && line("stroke dashed", "reserved"),
    around.chart.capacity && line("stroke bad", "capacity"),
    around.chart.device.length > 0 && element("span", { class: "key line" }, element("span", { class: "diamond" }, "◇"), "device, all processes, at step ends"),
  ];
  return element("div", { class: "legend" }, keys, lines, chart.time && laneKeys(chart.time));
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
      element("td", { class: "mono muted" }, frame < 0 ? operationOf(data, view, row) : view.frame_names[frame]),
      element("td", {}, element("button", { type: "button", class: "quiet", onclick: () => { app.state.row = row; app.go("map"); } }, "On the map")),
    );
  });
  const open = (name, label) => element("button", { type: "button", class: "quiet", onclick: () => app.go(name) }, label);
  const tools = element("div", { class: "toolbar" }, open("peak", "All of it, by category and module"), open("segments", "The allocator's segments then"), open("map", "On the map"), element("button", { type: "button", class: "quiet", onclick: () => app.showMoment(null) }, "Back to the peak"));
  return section(
    "moment-section",
    `${formatBytes(data.level[moment])} in use then`,
    `${momentText(data, view, moment)}. The largest of ${rows.length.toLocaleString("en-US")} allocations:`,
    element("div", { class: "panel" }, tools, element("div", { class: "scroll" }, element("table", { id: "moment-table" }, element("tbody", {}, largest)))),
  );
}
