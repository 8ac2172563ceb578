// Draws steps and phases below the memory, names every n-th step, and hatches what was not recorded.

import { namedEvery } from "./around.js";
import { gapsOf, isTimed, placeOfMoment } from "./camera.js";
import { lastNotAbove } from "./search.js";

const STEP_TOP = 5;
const PHASE_TOP = 24;
const LANE_HIGH = 17;
/** Phases of steps narrower than this would be a haze. */
const PHASES_FROM = 14;
const LINES_FROM = 22;

/** Draw the two lanes and, over the memory, a line where named steps begin. */
export function drawSteps(context, frame, colors) {
  const { plot, camera, axis, around, apart } = frame;
  const lanes = around.lanes(axis).filter((one) => one.to >= camera.x0 && one.from <= camera.x1);
  if (!around.lanes(axis).length) return;
  const [steps, phases] = [lanes.filter((one) => one.lane === "step"), lanes.filter((one) => one.lane === "phase")];
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.width, plot.height + frame.timeTop);
  context.clip();
  context.textAlign = "center";
  context.textBaseline = "middle";
  drawStepBars(context, frame, colors, steps, apart);
  nameSteps(context, frame, colors, steps, apart);
  if (apart >= PHASES_FROM) for (const one of phases) drawPhase(context, frame, colors, one);
  else if (frame.grain || phases.length) drawHint(context, frame, colors);
  context.restore();
  drawHeads(context, frame, colors, phases.length > 0);
}

// Narrow steps are one band: gaps between them would be a haze.
function drawStepBars(context, { plot, toX }, colors, steps, apart) {
  const margin = apart > 4 ? 0.5 : 0;
  context.fillStyle = colors.phases["--phase-other"];
  for (const one of steps) {
    const [x0, x1] = [toX(one.from), toX(one.to)];
    context.fillRect(x0 + margin, plot.top + plot.height + STEP_TOP, Math.max(x1 - x0 - 2 * margin, 0.6), LANE_HIGH);
  }
}

function nameSteps(context, frame, colors, steps, apart) {
  const { plot, toX } = frame;
  const widest = steps.reduce((wide, one) => Math.max(wide, context.measureText(one.short).width), 0) + 12;
  const every = namedEvery(apart, widest);
  const top = plot.top + plot.height + STEP_TOP;
  const middle = top + LANE_HIGH / 2 + 0.5;
  for (const one of steps) {
    const [x0, x1] = [toX(one.from), toX(one.to)];
    const seen = [Math.max(x0, plot.left), Math.min(x1, plot.left + plot.width)];
    const isNamed = one.short !== "" && Number(one.short) % every === 0;
    if (isNamed) lineAt(context, colors, Math.round(x0) + 0.5, apart >= LINES_FROM ? plot.top : top, top + LANE_HIGH, apart >= LINES_FROM);
    context.fillStyle = colors.ink;
    if (context.measureText(one.text).width + 8 < seen[1] - seen[0]) context.fillText(one.text, (seen[0] + seen[1]) / 2, middle);
    else if (isNamed) context.fillText(one.short, Math.max((x0 + x1) / 2, x0 + context.measureText(one.short).width / 2 + 4), middle);
  }
}

function lineAt(context, colors, x, top, bottom, isDotted) {
  context.strokeStyle = colors.muted;
  context.globalAlpha = 0.55;
  context.setLineDash(isDotted ? [1, 3] : []);
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, bottom);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function drawPhase(context, frame, colors, one) {
  const { plot, toX } = frame;
  const [x0, x1] = [toX(one.from), toX(one.to)];
  if (x1 - x0 < 0.4) return;
  const top = plot.top + plot.height + PHASE_TOP + (one.hatched ? 11 : 0);
  context.fillStyle = colors.phases[one.color.slice(4, -1)] ?? one.color;
  context.fillRect(x0 + 0.5, top, Math.max(x1 - x0 - 1, 0.6), one.hatched ? 6 : LANE_HIGH);
  const seen = [Math.max(x0, plot.left), Math.min(x1, plot.left + plot.width)];
  if (one.hatched || context.measureText(one.text).width + 8 > seen[1] - seen[0]) return;
  context.fillStyle = colors.phaseInk[one.color.slice(4, -1)] ?? colors.ink;
  context.fillText(one.text, (seen[0] + seen[1]) / 2, top + LANE_HIGH / 2 + 0.5);
}

function drawHint(context, frame, colors) {
  const { plot } = frame;
  context.fillStyle = colors.muted;
  const text = frame.grain ? "each step is one bar here, as high as its peak; zoom in for more" : "zoom in to see phases";
  context.fillText(text, plot.left + plot.width / 2, plot.top + plot.height + PHASE_TOP + LANE_HIGH / 2);
}

function drawHeads(context, frame, colors, hasPhases) {
  const { plot } = frame;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = colors.muted;
  context.fillText("step", plot.left - 8, plot.top + plot.height + STEP_TOP + LANE_HIGH / 2);
  if (hasPhases) context.fillText("phase", plot.left - 8, plot.top + plot.height + PHASE_TOP + LANE_HIGH / 2);
}

/** Hatch the folded gaps, or draw a line where the axis of events has no width for one, and say what it was. */
export function drawGaps(context, frame, colors) {
  const { data, axis, plot, toX } = frame;
  const texts = (frame.around.chart?.gaps ?? []).map(([, , text]) => text);
  const gaps = isTimed(data, axis) ? gapsOf(data, axis) : data.base.slice(1).map(([first]) => placeOfMoment(data, axis, first)).map((place) => [place, place]);
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.width, plot.height);
  context.clip();
  gaps.forEach(([from, to], at) => {
    const [x0, x1] = [toX(from), toX(to)];
    if (x1 < plot.left || x0 > plot.left + plot.width) return;
    if (to > from) hatchGap(context, frame, colors, x0, x1);
    else dashGap(context, frame, colors, x0);
    if (gaps.length <= 24) nameGap(context, frame, colors, x0, x1, texts[at] ?? "not recorded");
  });
  context.restore();
}

function hatchGap(context, { plot }, colors, x0, x1) {
  context.fillStyle = colors.panelText;
  context.fillRect(x0, plot.top, x1 - x0, plot.height);
  context.save();
  context.beginPath();
  context.rect(x0, plot.top, x1 - x0, plot.height);
  context.clip();
  context.strokeStyle = colors.muted;
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  context.beginPath();
  for (let x = x0 - plot.height; x < x1; x += 7) {
    context.moveTo(x, plot.top + plot.height);
    context.lineTo(x + plot.height, plot.top);
  }
  context.stroke();
  context.restore();
}

function dashGap(context, { plot }, colors, x) {
  context.strokeStyle = colors.ink;
  context.setLineDash([5, 4]);
  context.beginPath();
  context.moveTo(Math.round(x) + 0.5, plot.top);
  context.lineTo(Math.round(x) + 0.5, plot.top + plot.height);
  context.stroke();
  context.setLineDash([]);
}

// Upright where the gap is narrow, which it is when folded.
function nameGap(context, { plot }, colors, x0, x1, text) {
  const wide = context.measureText(text).width;
  const upright = x1 - x0 < wide + 16;
  if ((upright ? plot.height : x1 - x0) < wide + 16) return;
  context.save();
  context.translate((Math.max(x0, plot.left) + Math.min(x1, plot.left + plot.width)) / 2, plot.top + plot.height / 2);
  if (upright) context.rotate(-Math.PI / 2);
  context.fillStyle = colors.panelText;
  context.fillRect(-wide / 2 - 5, -8, wide + 10, 16);
  context.fillStyle = colors.ink;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, 0, 0.5);
  context.restore();
}

/** The text of the gap that holds a place; null outside of gaps. */
export function gapTextAt(frame, place) {
  const at = lastNotAbove(frame.data.folds.map((one) => one.from), place);
  const inside = isTimed(frame.data, frame.axis) && at >= 0 && place < frame.data.folds[at].to;
  return inside ? (frame.around.chart?.gaps[at]?.[2] ?? "not recorded") : null;
}
