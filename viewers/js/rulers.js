// Rulers: places and texts of ticks, and drawing them beside the map. The numbers of ticks are pure functions.

import { gapsOf, placeOfMoment } from "./camera.js";
import { formatBytes } from "./format.js";
import { paintLanes } from "./timelanes.js";

const UNIT_STEPS = [1, 2, 5];

/** Ticks of a byte ruler: multiples of a power of two, at most `most` of them. */
export function byteTicks(low, high, most) {
  let step = 1;
  while ((high - low) / step > most) step *= 2;
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push({ value, text: value === 0 ? "0" : exactBytes(value, step) });
  return ticks;
}

// Neighbouring ticks must not read alike, so that as many digits are kept as the step needs.
function exactBytes(value, step) {
  if (formatBytes(value) !== formatBytes(value + step)) return formatBytes(value);
  const power = Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), 5);
  const digits = Math.max(0, Math.ceil((power * 10 - Math.log2(step)) * 0.302));
  return `${(value / 1024 ** power).toFixed(Math.min(digits, 10))} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
}

/** Ticks of the horizontal ruler: seconds or moments. */
export function axisTicks(low, high, most, inSeconds) {
  const unit = inSeconds ? 1e-9 : 1;
  let step = unit;
  for (let at = 1; (high - low) / step > most; at += 1) step = unit * UNIT_STEPS[at % 3] * 10 ** Math.floor(at / 3);
  const ticks = [];
  const first = Math.ceil(low / step);
  for (let at = first; at * step <= high; at += 1) ticks.push({ value: at * step, text: inSeconds ? secondsText(at * step, step) : Math.round(at * step).toLocaleString("en-US") });
  return ticks;
}

/** A time with as many digits as a step of that length needs. */
export function secondsText(seconds, step) {
  const [unit, scale] = Math.abs(seconds) >= 1 || step >= 1 || seconds === 0 ? ["s", 1] : step >= 1e-3 || Math.abs(seconds) >= 1e-3 ? ["ms", 1e3] : ["µs", 1e6];
  const digits = Math.min(Math.max(0, Math.ceil(-Math.log10(step * scale) - 1e-9)), 9);
  return `${(seconds * scale).toFixed(digits)} ${unit}`;
}

/** Draw rulers, lanes, marks and the measured stretch onto the canvas over the map. */
export function drawRulers(context, frame, colors) {
  const { width, height, ratio } = frame;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `11px ${colors.font}`;
  drawByteRuler(context, frame, colors);
  drawAxisRuler(context, frame, colors);
  drawLanes(context, frame, colors);
  if (frame.time) drawTimeRows(context, frame, colors);
  drawMarks(context, frame, colors);
  if (frame.measured) drawMeasured(context, frame, colors);
}

function toX(frame, value) {
  const { plot, camera } = frame;
  return plot.left + ((value - camera.x0) / (camera.x1 - camera.x0)) * plot.width;
}

function toY(frame, value) {
  const { plot, camera } = frame;
  return plot.top + plot.height - ((value - camera.y0) / (camera.y1 - camera.y0)) * plot.height;
}

function drawByteRuler(context, frame, colors) {
  const { plot, camera } = frame;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const { value, text } of byteTicks(camera.y0, camera.y1, Math.max(plot.height / 60, 2))) {
    const y = Math.round(toY(frame, value)) + 0.5;
    context.fillStyle = colors.muted;
    context.fillText(text, plot.left - 8, Math.min(Math.max(y, plot.top + 5), plot.top + plot.height - 4));
    context.strokeStyle = colors.line;
    context.beginPath();
    context.moveTo(plot.left - 4, y);
    context.lineTo(plot.left, y);
    context.stroke();
  }
}

function drawAxisRuler(context, frame, colors) {
  const { plot, camera } = frame;
  const bottom = plot.top + plot.height + frame.laneHeight;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const { value, text } of axisTicks(camera.x0, camera.x1, Math.max(plot.width / 110, 2), frame.inSeconds)) {
    const x = Math.round(toX(frame, value)) + 0.5;
    context.strokeStyle = colors.line;
    context.beginPath();
    context.moveTo(x, bottom);
    context.lineTo(x, bottom + 4);
    context.stroke();
    context.fillStyle = colors.muted;
    context.fillText(text, Math.min(Math.max(x, plot.left + 20), plot.left + plot.width - 24), bottom + 7);
  }
}

function drawLanes(context, frame, colors) {
  const { plot, data, view, axis } = frame;
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top + plot.height, plot.width, frame.timeTop);
  context.clip();
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [first, last, lane, text, color, hatched] of view.spans) {
    const x0 = toX(frame, placeOfMoment(data, axis, first));
    const x1 = toX(frame, placeOfMoment(data, axis, last + (axis === "event" ? 1 : 0)));
    if (x1 < plot.left || x0 > plot.left + plot.width || x1 - x0 < 0.4) continue;
    const top = plot.top + plot.height + (lane === "step" ? 5 : 24) + (hatched ? 11 : 0);
    const height = hatched ? 6 : 17;
    context.fillStyle = lane === "step" ? colors.phases["--phase-other"] : colors.phases[color.slice(4, -1)] ?? color;
    context.fillRect(x0 + 0.5, top, Math.max(x1 - x0 - 1, 0.6), height);
    const seen = [Math.max(x0, plot.left), Math.min(x1, plot.left + plot.width)];
    if (!hatched && context.measureText(text).width + 8 < seen[1] - seen[0]) {
      context.fillStyle = colors.ink;
      context.fillText(text, (seen[0] + seen[1]) / 2, top + 9);
    }
  }
  context.restore();
  context.textAlign = "right";
  context.fillStyle = colors.muted;
  if (view.spans.length) {
    context.fillText("step", plot.left - 8, plot.top + plot.height + 14);
    context.fillText("phase", plot.left - 8, plot.top + plot.height + 33);
  }
}

function drawTimeRows(context, frame, colors) {
  const { plot, camera, time } = frame;
  const top = plot.top + plot.height + frame.timeTop;
  const [from, to] = [camera.x0, camera.x1].map((seconds) => (seconds - time.map_shift) * 1e9);
  paintLanes(context, time, { left: plot.left, top, width: plot.width, row: frame.timeRow }, from, to, colors.style);
  context.font = `10px ${colors.font}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = colors.muted;
  time.rows.forEach((text, row) => context.fillText(text, plot.left - 6, top + (row + 0.5) * frame.timeRow));
  context.font = `11px ${colors.font}`;
}

function drawGaps(context, frame, colors) {
  const { plot } = frame;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = colors.muted;
  for (const gap of gapsOf(frame.data, frame.axis)) {
    const [from, to] = gap.map((place) => Math.min(Math.max(toX(frame, place), plot.left), plot.left + plot.width));
    if (to - from > context.measureText("not recorded").width + 8) context.fillText("not recorded", (from + to) / 2, plot.top + plot.height / 2);
  }
}

function drawMarks(context, frame, colors) {
  const { plot, data, axis } = frame;
  drawGaps(context, frame, colors);
  const marks = [...(frame.moment === null ? [] : [[frame.moment, "shown moment", colors.accent]]), [frame.view.peaks.peak, "peak", colors.bad]];
  context.textBaseline = "top";
  for (const [moment, text, color] of marks) {
    if (moment === undefined) continue;
    const x = Math.round(toX(frame, placeOfMoment(data, axis, moment) + (axis === "event" ? 0.5 : 0))) + 0.5;
    if (x < plot.left || x > plot.left + plot.width) continue;
    context.strokeStyle = color;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x, plot.top);
    context.lineTo(x, plot.top + plot.height);
    context.stroke();
    context.setLineDash([]);
    const flip = x > plot.left + plot.width - 90;
    context.textAlign = flip ? "right" : "left";
    context.fillStyle = colors.panelText;
    const wide = context.measureText(text).width + 8;
    context.fillRect(flip ? x - wide - 2 : x + 2, plot.top + 2, wide, 15);
    context.fillStyle = color;
    context.fillText(text, x + (flip ? -6 : 6), plot.top + 4);
  }
}

function drawMeasured(context, frame, colors) {
  const { x0, x1, y0, y1, text } = frame.measured;
  context.strokeStyle = colors.accent;
  context.lineWidth = 1;
  context.setLineDash([]);
  context.strokeRect(Math.min(x0, x1) + 0.5, Math.min(y0, y1) + 0.5, Math.abs(x1 - x0), Math.abs(y1 - y0));
  context.font = `600 12px ${colors.font}`;
  const wide = context.measureText(text).width + 12;
  const left = Math.min(Math.max(Math.min(x0, x1), frame.plot.left), frame.plot.left + frame.plot.width - wide);
  const top = Math.max(Math.min(y0, y1) - 22, frame.plot.top);
  context.fillStyle = colors.panelText;
  context.fillRect(left, top, wide, 19);
  context.fillStyle = colors.accent;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(text, left + 6, top + 10);
}
