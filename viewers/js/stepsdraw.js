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

/** The lanes in sight, and how far apart steps are on average. */
function inSight(frame) {
  const { camera, plot } = frame;
  const lanes = frame.around.lanes(frame.axis).filter((one) => one.to >= camera.x0 && one.from <= camera.x1);
  const steps = lanes.filter((one) => one.lane === "step" && one.short !== "");
  const scale = plot.width / (camera.x1 - camera.x0);
  const lengths = steps.map((one) => (one.to - one.from) * scale).sort((one, other) => one - other);
  return { lanes, steps, apart: lengths.length ? lengths[lengths.length >> 1] : Infinity };
}

/** Draw the two lanes and, over the memory, a line where named steps begin. */
export function drawSteps(context, frame, colors) {
  const { plot, toX } = frame;
  const { lanes, steps, apart } = inSight(frame);
  if (!frame.around.lanes(frame.axis).length) return;
  const widest = steps.reduce((wide, one) => Math.max(wide, context.measureText(one.short).width), 0) + 12;
  const every = namedEvery(apart, widest);
  const isNamed = (one) => one.short !== "" && Number(one.short) % every === 0;
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.width, plot.height + frame.timeTop);
  context.clip();
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const one of lanes) {
    const [x0, x1] = [toX(one.from), toX(one.to)];
    if (one.lane === "step") drawStep(context, frame, colors, one, x0, x1, { isNamed: isNamed(one), apart });
    else if (apart >= PHASES_FROM) drawPhase(context, frame, colors, one, x0, x1);
  }
  if (apart < PHASES_FROM && lanes.some((one) => one.lane === "phase")) drawHint(context, frame, colors);
  context.restore();
  drawHeads(context, frame, colors, lanes.some((one) => one.lane === "phase"));
}

function drawStep(context, frame, colors, one, x0, x1, { isNamed, apart }) {
  const { plot } = frame;
  const top = plot.top + plot.height + STEP_TOP;
  context.fillStyle = colors.phases["--phase-other"];
  context.fillRect(x0 + (apart > 4 ? 0.5 : 0), top, Math.max(x1 - x0 - (apart > 4 ? 1 : 0), 0.6), LANE_HIGH);
  if (isNamed) {
    context.strokeStyle = colors.muted;
    context.globalAlpha = 0.55;
    context.setLineDash(apart >= LINES_FROM ? [1, 3] : []);
    context.beginPath();
    context.moveTo(Math.round(x0) + 0.5, apart >= LINES_FROM ? plot.top : top);
    context.lineTo(Math.round(x0) + 0.5, top + LANE_HIGH);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
  }
  const seen = [Math.max(x0, plot.left), Math.min(x1, plot.left + plot.width)];
  context.fillStyle = colors.ink;
  const full = context.measureText(one.text).width + 8 < seen[1] - seen[0];
  if (full) context.fillText(one.text, (seen[0] + seen[1]) / 2, top + LANE_HIGH / 2 + 0.5);
  else if (isNamed) context.fillText(one.short, Math.max((x0 + x1) / 2, x0 + context.measureText(one.short).width / 2 + 3), top + LANE_HIGH / 2 + 0.5);
}

function drawPhase(context, frame, colors, one, x0, x1) {
  const { plot } = frame;
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
  context.fillText("zoom in to see phases", plot.left + plot.width / 2, plot.top + plot.height + PHASE_TOP + LANE_HIGH / 2);
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
