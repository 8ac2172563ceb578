// Draws what is marked on a chart: lines of whole blocks, of what is reserved and of the capacity; peak, out-of-memory, the
// shown moment; and their labels, which make way for one another.

import { isTimed, placeOfMoment, placeOfNs } from "./camera.js";
import { aroundPoint, besideLine, placedLabels } from "./labels.js";
import { lastNotAbove } from "./search.js";

const HIGH = 19;
const MOST_POINTS = 60;
/** Pixels of a step from which the line of whole blocks is drawn. */
const ALLOCATED_FROM = 60;

/** Draw lines, points and labels over the memory. Lines of bytes are drawn where the vertical axis is bytes in use. */
export function drawMarks(context, frame, colors) {
  const { plot } = frame;
  const labels = [];
  const points = [];
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.width, plot.height);
  context.clip();
  if (frame.layout !== "address") {
    const envelope = frame.envelope?.(frame.moments, frame.grain);
    if (envelope) drawEnvelope(context, frame, colors, envelope);
    drawCurve(context, frame, frame.series?.reserved, { color: colors.muted, width: 1.5, dash: [6, 4] });
    // Up and down in every pixel, the line of whole blocks would be a black bar.
    if (frame.apart >= ALLOCATED_FROM) drawCurve(context, frame, frame.series?.allocated, { color: colors.ink, width: 1, dash: [] });
    points.push(...drawDevice(context, frame, colors));
  }
  points.push(...pointOfPeak(frame));
  labels.push(...oomMark(context, frame, colors), ...peakMark(context, frame, colors), ...capacityMark(context, frame, colors), ...momentMark(context, frame, colors));
  drawLabels(context, placedLabels(labels, { left: plot.left + 2, top: plot.top + 2, width: plot.width - 4, height: plot.height - 4 }, points), colors);
  context.restore();
}

function labelOf(context, text, color, places) {
  context.font = context.font.replace(/^(\d+ )?/, "600 ");
  const wide = Math.ceil(context.measureText(text).width) + 16;
  context.font = context.font.replace(/^600 /, "");
  return { text, color, wide, high: HIGH, places: places(wide) };
}

function drawLabels(context, labels, colors) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const { text, color, left, top, wide, high } of labels) {
    context.fillStyle = colors.panelText;
    context.globalAlpha = 0.94;
    context.fillRect(left, top, wide, high);
    context.globalAlpha = 1;
    context.fillStyle = color;
    context.fillRect(left, top, 3, high);
    context.fillStyle = colors.ink;
    context.font = `600 11px ${colors.font}`;
    context.fillText(text, left + 9, top + high / 2 + 0.5);
  }
  context.font = `11px ${colors.font}`;
}

function vertical(context, { plot }, x, color, width, dash) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x, plot.top);
  context.lineTo(x, plot.top + plot.height);
  context.stroke();
  context.setLineDash([]);
  context.lineWidth = 1;
}

function seen(frame, x) {
  return x >= frame.plot.left - 1 && x <= frame.plot.left + frame.plot.width + 1;
}

function oomMark(context, frame, colors) {
  const place = frame.around.oomPlace(frame.axis);
  if (place === null) return [];
  const x = frame.toX(place);
  if (!seen(frame, x)) return [];
  vertical(context, frame, Math.min(x, frame.plot.left + frame.plot.width - 1), colors.bad, 2, []);
  const line = lineOfCapacity(frame);
  return [labelOf(context, frame.around.chart.oom.text, colors.bad, (wide) => besideLine(x, frame.plot.top + 4, wide, HIGH).sort((one, other) => crosses(one, line) - crosses(other, line) || (one[0] > x) - (other[0] > x) || one[1] - other[1]))];
}

// Whether a label with this corner lies on a horizontal line.
function crosses([, top], y) {
  return top - 2 < y && y < top + HIGH + 2;
}

/** Where the peak is drawn as a point; nothing where it is not in view, or is a line. */
function pointOfPeak(frame) {
  const place = frame.around.peakPlace(frame.axis);
  if (place === null || frame.layout === "address" || !seen(frame, frame.toX(place))) return [];
  return [[frame.toX(place), frame.toY(frame.around.chart.peak.bytes)]];
}

/** How far down the line of the capacity lies; -1 where none is drawn. */
function lineOfCapacity(frame) {
  const capacity = frame.layout === "address" ? null : frame.around.chart?.capacity;
  return capacity ? Math.round(frame.toY(capacity.bytes)) + 0.5 : -1;
}

function peakMark(context, frame, colors) {
  const place = frame.around.peakPlace(frame.axis);
  if (place === null) return [];
  const x = frame.toX(place);
  const { text, bytes } = frame.around.chart.peak;
  if (!seen(frame, x)) return [];
  if (frame.layout === "address") {
    vertical(context, frame, Math.round(x) + 0.5, colors.ink, 1, [3, 3]);
    return [labelOf(context, text, colors.ink, (wide) => besideLine(x, frame.plot.top + 4, wide, HIGH))];
  }
  const y = frame.toY(bytes);
  context.fillStyle = colors.panelText;
  context.strokeStyle = colors.ink;
  context.lineWidth = 2.5;
  context.beginPath();
  context.arc(x, y, 4.5, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.lineWidth = 1;
  return [labelOf(context, text, colors.ink, (wide) => aroundPoint(x, y, wide, HIGH))];
}

function capacityMark(context, frame, colors) {
  const { plot } = frame;
  const y = lineOfCapacity(frame);
  if (y < plot.top || y > plot.top + plot.height) return [];
  context.strokeStyle = colors.bad;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(plot.left, y);
  context.lineTo(plot.left + plot.width, y);
  context.stroke();
  context.lineWidth = 1;
  const ends = (wide) => [plot.left + plot.width - wide - 4, plot.left + 4, plot.left + (plot.width - wide) / 2];
  return [labelOf(context, frame.around.chart.capacity.text, colors.bad, (wide) => [y - HIGH - 2, y + 3].flatMap((top) => ends(wide).map((left) => [left, top])))];
}

function momentMark(context, frame, colors) {
  if (frame.moment === null) return [];
  const x = Math.round(frame.toX(placeOfMoment(frame.data, frame.axis, frame.moment) + (isTimed(frame.data, frame.axis) ? 0 : 0.5))) + 0.5;
  if (!seen(frame, x)) return [];
  vertical(context, frame, x, colors.accent, 1.5, [4, 3]);
  return [labelOf(context, "shown moment", colors.accent, (wide) => besideLine(x, frame.plot.top + 4, wide, HIGH))];
}

/** A curve of thinned levels, step by step; it breaks where nothing was recorded. */
function drawCurve(context, frame, values, { color, width, dash }) {
  const places = values ? placesOfSeries(frame) : null;
  if (places === null) return;
  const { camera } = frame;
  const breaks = new Set(frame.series.breaks);
  const pixel = (camera.x1 - camera.x0) / frame.plot.width;
  context.strokeStyle = color;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  let y = null;
  for (let at = Math.max(lastNotAbove(places, camera.x0), 0); at < values.length && places[at] <= camera.x1; at += 1) {
    const isBreak = breaks.has(at);
    // A level that the line only touches on its way up, within a pixel, is left out.
    if (y !== null && !isBreak && values[at + 1] > values[at] && places[at + 1] - places[at] < pixel && !breaks.has(at + 1)) continue;
    const [x, next] = [frame.toX(Math.max(places[at], camera.x0)), frame.toY(values[at])];
    if (y === null || isBreak) context.moveTo(x, next);
    else {
      context.lineTo(x, y);
      context.lineTo(x, next);
    }
    y = next;
    const end = breaks.has(at + 1) ? places[at] : at + 1 < values.length ? places[at + 1] : places[at];
    if (end > camera.x1) context.lineTo(frame.toX(camera.x1), y);
  }
  context.stroke();
  context.setLineDash([]);
  context.lineWidth = 1;
}

const seriesPlaces = new WeakMap();

// Where the points of thinned levels lie on the axis in force, worked out once; null where they have no times for it.
function placesOfSeries({ data, axis, series }) {
  const inTime = isTimed(data, axis);
  if (inTime && !series.time) return null;
  if (!seriesPlaces.has(series)) seriesPlaces.set(series, {});
  const known = seriesPlaces.get(series);
  known[inTime] ??= inTime ? Float64Array.from(series.time, (ns) => placeOfNs(data, axis, ns)) : Float64Array.from(series.event, (event) => placeOfEvent(data, event));
  return known[inTime];
}

// Rows of the events table are moments of this device only where it is alone.
function placeOfEvent(data, event) {
  if (data.eventPlaces !== null) return event - 1;
  return lastNotAbove(data.event, event);
}

/** The lowest level of each column, where that is below what the column shows. */
function drawEnvelope(context, frame, colors, { lowest, highest }) {
  const { plot } = frame;
  const step = plot.width / lowest.length;
  context.fillStyle = colors.panelText;
  context.globalAlpha = 0.5;
  for (let column = 0; column < lowest.length; column += 1) {
    if (!(lowest[column] < highest[column])) continue;
    const [top, bottom] = [frame.toY(highest[column]), frame.toY(lowest[column])];
    if (bottom - top > 1.5) context.fillRect(plot.left + column * step, top, step, bottom - top);
  }
  context.globalAlpha = 1;
  context.strokeStyle = colors.ink;
  context.globalAlpha = 0.6;
  context.beginPath();
  let drawing = false;
  lowest.forEach((bytes, column) => {
    const x = plot.left + (column + 0.5) * step;
    if (!(bytes < highest[column])) drawing = false;
    else if (drawing) context.lineTo(x, frame.toY(bytes));
    else {
      context.moveTo(x, frame.toY(bytes));
      drawing = true;
    }
  });
  context.stroke();
  context.globalAlpha = 1;
}

// Returns where the points are, as long as they are so few that a label can make way for them.
function drawDevice(context, frame, colors) {
  const points = [];
  if (!isTimed(frame.data, frame.axis)) return points;
  context.strokeStyle = colors.ink;
  context.lineWidth = 1.5;
  for (const [ns, bytes] of frame.around.chart?.device ?? []) {
    const [x, y] = [frame.toX(placeOfNs(frame.data, frame.axis, ns)), frame.toY(bytes)];
    if (!seen(frame, x)) continue;
    points.push([x, y]);
    context.beginPath();
    context.moveTo(x - 5, y);
    context.lineTo(x, y - 5);
    context.lineTo(x + 5, y);
    context.lineTo(x, y + 5);
    context.closePath();
    context.stroke();
  }
  context.lineWidth = 1;
  return points.length <= MOST_POINTS ? points : [];
}
