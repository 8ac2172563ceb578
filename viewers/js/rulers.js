// Draws what stands around and over a chart: rulers, lanes of steps and time, marks, and a box that is being selected.

import { drawMarks } from "./marks.js";
import { drawGaps, drawSteps } from "./stepsdraw.js";
import { recordedParts, secondOfPlace } from "./folds.js";
import { axisTicks, byteTicks, clockTicks } from "./ticks.js";
import { paintLanes } from "./timelanes.js";

/** Draw everything but the allocations onto the canvas over them. */
export function drawRulers(context, given, colors) {
  const { width, height, ratio, plot, camera } = given;
  const frame = {
    ...given,
    toX: (value) => plot.left + ((value - camera.x0) / (camera.x1 - camera.x0)) * plot.width,
    toY: (value) => plot.top + plot.height - ((value - camera.y0) / (camera.y1 - camera.y0)) * plot.height,
  };
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `11px ${colors.font}`;
  if (!frame.flat) drawByteRuler(context, frame, colors);
  drawAxisRuler(context, frame, colors);
  drawSteps(context, frame, colors);
  if (frame.time) drawTimeRows(context, frame, colors);
  if (!frame.flat) {
    drawGaps(context, frame, colors);
    drawMarks(context, frame, colors);
  }
  if (frame.measured) drawMeasured(context, frame, colors);
}

function drawByteRuler(context, frame, colors) {
  const { plot, camera } = frame;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const { value, text } of byteTicks(camera.y0, camera.y1, Math.max(plot.height / 46, 2))) {
    const y = Math.round(frame.toY(value)) + 0.5;
    context.fillStyle = colors.muted;
    context.fillText(text, plot.left - 8, Math.min(Math.max(y, plot.top + 5), plot.top + plot.height - 4));
    context.strokeStyle = colors.line;
    context.beginPath();
    context.moveTo(plot.left - 4, y);
    context.lineTo(plot.left, y);
    context.stroke();
    context.strokeStyle = colors.grid;
    context.globalAlpha = 0.5;
    context.beginPath();
    context.moveTo(plot.left, y);
    context.lineTo(plot.left + plot.width, y);
    context.stroke();
    context.globalAlpha = 1;
  }
}

function drawAxisRuler(context, frame, colors) {
  const { plot, camera, data } = frame;
  const bottom = plot.top + plot.height + frame.laneHeight;
  const most = Math.max(plot.width / 110, 2);
  context.textAlign = "center";
  context.textBaseline = "top";
  let reached = -Infinity;
  for (const { value, text } of frame.inSeconds ? clockTicks(data.folds, camera.x0, camera.x1, most) : axisTicks(camera.x0, camera.x1, most, false)) {
    const x = Math.round(frame.toX(value)) + 0.5;
    const wide = context.measureText(text).width;
    const left = Math.min(Math.max(x - wide / 2, plot.left), plot.left + plot.width - wide);
    if (left < reached + 12) continue;
    reached = left + wide;
    context.strokeStyle = colors.line;
    context.beginPath();
    context.moveTo(x, bottom);
    context.lineTo(x, bottom + 4);
    context.stroke();
    context.fillStyle = colors.muted;
    context.fillText(text, left + wide / 2, bottom + 7);
  }
  context.textAlign = "right";
  context.fillText(frame.inSeconds ? "time" : "event", plot.left - 8, bottom + 7);
}

function drawTimeRows(context, frame, colors) {
  const { plot, camera, time, data } = frame;
  const top = plot.top + plot.height + frame.timeTop;
  for (const [from, to] of recordedParts(data.folds, camera.x0, camera.x1, true)) {
    const [left, right] = [frame.toX(from), frame.toX(to)];
    const [start, end] = [secondOfPlace(data.folds, from) * 1e9, secondOfPlace(data.folds, to) * 1e9];
    if (right - left >= 1 && end > start) paintLanes(context, time, { left, top, width: right - left, row: frame.timeRow }, start, end, colors.style);
  }
  context.font = `10px ${colors.font}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = colors.muted;
  time.rows.forEach((text, row) => context.fillText(text, plot.left - 6, top + (row + 0.5) * frame.timeRow));
  context.font = `11px ${colors.font}`;
}

function drawMeasured(context, frame, colors) {
  const { x0, x1, y0, y1, text } = frame.measured;
  const [left, top] = [Math.min(x0, x1), Math.min(y0, y1)];
  context.fillStyle = colors.accent;
  context.globalAlpha = 0.12;
  context.fillRect(left, top, Math.abs(x1 - x0), Math.abs(y1 - y0));
  context.globalAlpha = 1;
  context.strokeStyle = colors.accent;
  context.lineWidth = 1.5;
  context.setLineDash([]);
  context.strokeRect(left + 0.5, top + 0.5, Math.abs(x1 - x0), Math.abs(y1 - y0));
  context.lineWidth = 1;
  context.font = `600 12px ${colors.font}`;
  const wide = context.measureText(text).width + 12;
  const labelLeft = Math.min(Math.max(left, frame.plot.left), frame.plot.left + frame.plot.width - wide);
  const labelTop = Math.max(top - 22, frame.plot.top);
  context.fillStyle = colors.panelText;
  context.fillRect(labelLeft, labelTop, wide, 19);
  context.fillStyle = colors.accent;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(text, labelLeft + 6, labelTop + 10);
}
