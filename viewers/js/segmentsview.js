// The allocator's map at one moment: each segment a row, its blocks by category, and what lies free between them.

import { element, section, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { momentBar, shownMoment } from "./moments.js";
import { nameOf } from "./rows.js";
import { saveBlob, saveCsv } from "./save.js";
import { mapColors } from "./theme.js";

const ROW_HEIGHT = 20;
const NAME_WIDTH = 210;
const FRAMES = 240;

/** The view of one rank. */
export function newSegmentsView(app) {
  const node = element("div", { id: "segments" });
  const self = { app, node, playing: 0 };
  const show = () => app.withMap(node, (data, view) => fill(self, data, view, show));
  return { nodes: [node], draw: show, recolor: show, moment: show, key: (event) => (event.key === " " ? (self.play?.(), true) : false) };
}

/** The segments of a moment with the blocks that are taken in each: `[{ place, size, fact, blocks }]`, by address. */
export function segmentsAt(data, moment) {
  const segments = [];
  for (let one = 0; one < data.segmentStart.length; one += 1) {
    if (data.segmentStart[one] <= moment && data.segmentEnd[one] > moment) {
      segments.push({ place: data.segmentPlace[one], size: data.segmentSize[one], fact: data.segmentFact[one], blocks: [] });
    }
  }
  segments.sort((one, other) => one.place - other.place);
  const rows = [];
  for (let row = 0; row < data.count && data.start[row] <= moment; row += 1) if (data.end[row] > moment) rows.push(row);
  rows.sort((one, other) => data.place[one] - data.place[other]);
  let at = 0;
  for (const row of rows) {
    while (at < segments.length && segments[at].place + segments[at].size <= data.place[row]) at += 1;
    if (at < segments.length && segments[at].place <= data.place[row]) segments[at].blocks.push(row);
  }
  return segments;
}

/** What the segments of a moment come to: bytes reserved, taken and free, and how the free ones are cut up. */
export function segmentTotals(data, segments) {
  const totals = { reserved: 0, active: 0, free: 0, holes: 0, largest: 0, split: 0 };
  for (const segment of segments) {
    totals.reserved += segment.size;
    let at = segment.place;
    const hole = (bytes) => {
      if (bytes <= 0) return;
      totals.holes += 1;
      totals.free += bytes;
      totals.largest = Math.max(totals.largest, bytes);
      if (segment.blocks.length) totals.split += bytes;
    };
    for (const row of segment.blocks) {
      hole(data.place[row] - at);
      at = data.place[row] + data.block[row];
      totals.active += data.block[row];
    }
    hole(segment.place + segment.size - at);
  }
  return totals;
}

function fill(self, data, view, again) {
  const { app, node } = self;
  if (!data.segmentStart.length) {
    node.replaceChildren(element("div", { class: "panel empty" }, "The CPU allocator keeps no segments: memory goes straight back to the system. The map by address shows where its allocations lie."));
    return;
  }
  const canvas = element("canvas", { class: "segments-picture", id: "segments-picture" });
  const reading = element("div", { class: "reading", role: "status", hidden: true });
  const stats = element("dl", { class: "segment-stats", id: "segment-stats" });
  const slider = element("input", { type: "range", min: 0, max: data.numMoments - 1, step: 1, "aria-label": "moment", id: "moment-slider", oninput: () => { choose(Number(slider.value)); } });
  const bar = element("div");
  const choose = (moment) => {
    Object.assign(app.state, { moment, at: "moment" });
    app.save();
    drawMoment();
  };
  const drawMoment = () => {
    const moment = shownMoment(app, data, view);
    slider.value = moment;
    bar.replaceChildren(momentBar(app, data, view, again));
    self.segments = segmentsAt(data, moment);
    drawStats(stats, data, self.segments);
    drawSegments(canvas, data, view, self.segments);
  };
  const button = element("button", { type: "button", class: "quiet", id: "play", title: "space" }, "▶ Play");
  self.play = () => togglePlay(self, data, view, button, choose);
  button.addEventListener("click", self.play);
  const lead = "Every segment is as wide as it is large. Coloured: blocks in use, by category. Light: reserved and free.";
  const rounding = data.rounding ? null : element("p", { class: "muted" }, "Blocks are shown as large as they were asked for: the allocator's rounding is not known for this trace.");
  node.replaceChildren(section("segments-section", "What the allocator holds", lead, bar, element("div", { class: "panel" }, element("div", { class: "toolbar" }, data.numMoments > 2 && [button, slider], saveButtons(self, canvas, data, view)), stats, rounding, element("div", { class: "plot-frame segments-frame" }, canvas, reading))));
  followSegments(self, canvas, reading, data, view);
  drawMoment();
}

function saveButtons(self, canvas, data, view) {
  const png = () => canvas.toBlob((blob) => saveBlob(blob, "memtrace-segments.png"));
  return element(
    "div",
    { class: "tools" },
    element("button", { type: "button", class: "quiet", onclick: () => saveCsv(blockRows(data, view, self.segments), "memtrace-blocks.csv") }, "Save CSV"),
    element("button", { type: "button", class: "quiet", onclick: png }, "Save PNG"),
  );
}

/** Every block in use of some segments, as rows of a table. */
export function blockRows(data, view, segments) {
  const head = ["segment", "segment bytes", "pool", "offset", "block bytes", "requested bytes", "category", "name"];
  const rows = segments.flatMap((segment, index) =>
    segment.blocks.map((row) => {
      const fact = segment.fact ? view.segment_facts[segment.fact - 1] : null;
      return [index, segment.size, fact && fact[1], data.place[row] - segment.place, data.block[row], data.size[row], view.categories[data.category[row]].label, nameOf(data, view, row)];
    }),
  );
  return [head, ...rows];
}

function drawStats(stats, data, segments) {
  const totals = segmentTotals(data, segments);
  const rows = [
    ["segments", segments.length.toLocaleString("en-US")],
    ["reserved", formatBytes(totals.reserved)],
    ["in blocks", formatBytes(totals.active)],
    ["free", formatBytes(totals.free)],
    ["in how many pieces", totals.holes.toLocaleString("en-US")],
    ["largest free piece", formatBytes(totals.largest)],
    ["free beside blocks in use", formatBytes(totals.split)],
  ];
  stats.replaceChildren(...rows.map(([label, text]) => element("div", { "data-stat": label }, element("dt", {}, label), element("dd", { class: "number" }, text))));
}

// Play from the shown moment to the end of its step in a few seconds, whatever its length.
function togglePlay(self, data, view, button, choose) {
  if (self.playing) {
    clearInterval(self.playing);
    self.playing = 0;
    button.textContent = "▶ Play";
    return;
  }
  const from = shownMoment(self.app, data, view);
  const step = view.spans.findLast(([first, last, lane]) => lane === "step" && first <= from && last > from);
  const [first, last] = step ? [step[0], step[1]] : [0, data.numMoments - 1];
  let at = from >= last - 1 ? first : from;
  button.textContent = "❚❚ Pause";
  self.playing = setInterval(() => {
    at = Math.min(at + Math.max(Math.round((last - first) / FRAMES), 1), last);
    if (!button.isConnected || at >= last) {
      self.playing && clearInterval(self.playing);
      self.playing = 0;
      button.textContent = "▶ Play";
    }
    if (button.isConnected) choose(at);
  }, 40);
}

function layoutOf(canvas, segments) {
  const largest = segments.reduce((most, one) => Math.max(most, one.size), 1);
  const width = canvas.clientWidth - NAME_WIDTH;
  // Small segments beside one of many GiB would be nothing: the shortest bar is a few pixels.
  return { rows: [...segments].sort((one, other) => other.size - one.size || one.place - other.place).map((segment, index) => ({ segment, top: index * ROW_HEIGHT, wide: Math.max((segment.size / largest) * width, 6) })), width };
}

function drawSegments(canvas, data, view, segments) {
  const ratio = devicePixelRatio;
  const height = Math.max(segments.length * ROW_HEIGHT, ROW_HEIGHT);
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const colors = mapColors();
  const patterns = view.categories.map((one) => (one.hatched ? hatch(context, one.color, colors) : one.color));
  context.textBaseline = "middle";
  for (const { segment, top, wide } of layoutOf(canvas, segments).rows) {
    context.fillStyle = colors.muted;
    context.font = `11px ${colors.font}`;
    context.fillText(nameOfSegment(view, segment), 0, top + ROW_HEIGHT / 2, NAME_WIDTH - 10);
    context.fillStyle = `rgb(${colors.rgb.free.join(" ")})`;
    context.fillRect(NAME_WIDTH, top + 2, wide, ROW_HEIGHT - 4);
    for (const row of segment.blocks) {
      const left = NAME_WIDTH + ((data.place[row] - segment.place) / segment.size) * wide;
      const blockWide = (data.block[row] / segment.size) * wide;
      context.fillStyle = patterns[data.category[row]];
      context.fillRect(left, top + 2, Math.max(blockWide - (blockWide > 3 ? 0.7 : 0), 0.5), ROW_HEIGHT - 4);
    }
  }
}

function hatch(context, color, colors) {
  const tile = new OffscreenCanvas(6, 6);
  const drawing = tile.getContext("2d");
  drawing.fillStyle = color;
  drawing.fillRect(0, 0, 6, 6);
  drawing.strokeStyle = `rgb(${colors.rgb.panel.join(" ")} / 0.5)`;
  drawing.beginPath();
  for (const shift of [-6, 0, 6]) {
    drawing.moveTo(shift, 6);
    drawing.lineTo(shift + 6, 0);
  }
  drawing.stroke();
  return context.createPattern(tile, "repeat");
}

function nameOfSegment(view, segment) {
  const fact = segment.fact ? view.segment_facts[segment.fact - 1] : null;
  const kind = fact ? `${fact[1]}${fact[2] ? ", expandable" : ""}` : "given back later";
  return `${formatBytes(segment.size)} · ${kind}`;
}

function followSegments(self, canvas, reading, data, view) {
  canvas.addEventListener("pointerleave", () => { reading.hidden = true; });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const hit = layoutOf(canvas, self.segments).rows[Math.floor(y / ROW_HEIGHT)];
    if (!hit || x < NAME_WIDTH || x > NAME_WIDTH + hit.wide) {
      reading.hidden = true;
      return;
    }
    const place = hit.segment.place + ((x - NAME_WIDTH) / hit.wide) * hit.segment.size;
    reading.replaceChildren(...segmentReading(data, view, hit.segment, place));
    reading.hidden = false;
    reading.style.left = `${Math.min(x + 16, box.width - reading.offsetWidth - 8)}px`;
    reading.style.top = `${y + 16}px`;
  });
}

function segmentReading(data, view, segment, place) {
  const row = segment.blocks.find((one) => data.place[one] <= place && place < data.place[one] + data.block[one]);
  const fact = segment.fact ? view.segment_facts[segment.fact - 1] : null;
  const head = element("div", { class: "reading-head" }, element("span", {}, nameOfSegment(view, segment)), fact && element("span", { class: "muted" }, `stream ${fact[0]}`));
  if (row === undefined) return [head, element("div", { class: "muted" }, "free")];
  const category = view.categories[data.category[row]];
  return [
    head,
    element("div", {}, swatch(category.color, category.hatched), nameOf(data, view, row) ?? category.label, " ", element("strong", {}, formatBytes(data.size[row]))),
    data.rounding && element("div", { class: "muted" }, `block of ${formatBytes(data.block[row])}`),
  ].filter(Boolean);
}
