// What the payload says of a rank's chart, put onto an axis: lanes of steps and phases, where to open, out-of-memory, peak.

import { axisExtent, isTimed, momentAt, placeOfMoment, placeOfNs } from "./camera.js";
import { foldsOf, placeOfSecond, placesOf } from "./folds.js";
import { lastNotAbove } from "./search.js";

/** How much is seen beside the steps that a chart opens on. */
const MARGIN = 0.015;
const STEPS = [1, 2, 5];
/** Pixels of a step below which it is drawn as one bar, as high as its peak. */
const GRAIN = 7;

/** A chart as it stands in the payload, with answers by axis. Affects: the extent of `data`, which may reach farther. */
export function openChart(chart, data) {
  if (chart && data.seconds !== null) {
    // Gaps are as wide as a thumb among the steps, however long the program took to begin.
    const firsts = data.base.map(([first]) => first);
    if (chart.opens && data.folds.length) data.folds = foldsOf(data.seconds, firsts, chart.opens.map((ns) => ns / 1e9));
    data.places = placesOf(data.seconds, data.folds);
    const [from, to] = chart.extent.map((ns) => placeOfSecond(data.folds, ns / 1e9));
    data.extent = [from, Math.max(from + (to - from) * 1.004, from + 1e-9)];
  }
  const [byAxis, stepsByAxis] = [new Map(), new Map()];
  return {
    chart,
    /** Steps and phases with their places, by start. */
    lanes(axis) {
      const key = isTimed(data, axis);
      if (!byAxis.has(key)) byAxis.set(key, lanesOn(chart, data, axis));
      return byAxis.get(key);
    },
    /** The stretches of numbered steps. */
    steps(axis) {
      const key = isTimed(data, axis);
      if (!stepsByAxis.has(key)) {
        const steps = this.lanes(axis).filter((one) => one.lane === "step" && one.short !== "");
        stepsByAxis.set(key, { from: steps.map((one) => one.from), to: steps.map((one) => one.to) });
      }
      return stepsByAxis.get(key);
    },
    /** The places that the chart opens on. */
    home(axis) {
      const whole = axisExtent(data, axis);
      if (!chart?.opens || data.seconds === null) return whole;
      const [from, to] = [placeOfNs(data, axis, chart.opens[0]), placeOfNs(data, axis, chart.opens[1], true)];
      const margin = (to - from) * MARGIN;
      return to > from ? [Math.max(from - margin, whole[0]), Math.min(to + margin, whole[1])] : whole;
    },
    /** How far apart steps are in pixels, on average of those in sight; Infinity without any. */
    apart(axis, camera, width) {
      const { from, to } = this.steps(axis);
      const [first, last] = [Math.max(lastNotAbove(from, camera.x0), 0), lastNotAbove(from, camera.x1)];
      return last < first ? Infinity : ((to[last] - from[first]) / (last - first + 1)) * (width / (camera.x1 - camera.x0));
    },
    /** Where steps are too narrow for a picture of each: their stretches, so that each is drawn as one bar; else null. */
    grain(axis, camera, width) {
      return this.apart(axis, camera, width) < GRAIN ? this.steps(axis) : null;
    },
    /** Where memory ran out; null where it did not. */
    oomPlace: (axis) => (chart?.oom && data.seconds !== null ? placeOfNs(data, axis, chart.oom.at) : null),
    /** Where the peak is; null where the history does not hold it. */
    peakPlace(axis) {
      if (!chart?.peak) return null;
      const moment = lastNotAbove(data.event ?? [], chart.peak.event + 1);
      return moment < 0 ? null : placeOfMoment(data, axis, moment) + (isTimed(data, axis) ? 0 : 0.5);
    },
    /** "step 2 · forward" at a place; an empty text where nothing was marked. */
    where(axis, place) {
      const found = {};
      for (const one of this.lanes(axis)) if (one.from <= place && place <= one.to) found[one.lane] = one.text;
      return [found.step, found.phase].filter(Boolean).join(" · ");
    },
  };
}

function lanesOn(chart, data, axis) {
  if (!chart || data.seconds === null) return [];
  return chart.lanes.map(([start, end, lane, text, color, hatched, short]) => ({ from: placeOfNs(data, axis, start), to: placeOfNs(data, axis, end, true), lane, text, color, hatched, short }));
}

/** Which steps are named: every first, second, fifth, tenth …, so that names as wide as `wide` stand `apart` from each other. */
export function namedEvery(apart, wide) {
  let every = 1;
  for (let at = 1; apart * every < wide; at += 1) every = STEPS[at % 3] * 10 ** Math.floor(at / 3);
  return every;
}

/** The moment at a place for views of what was live: never before the first. */
export function momentOfPlace(data, axis, place) {
  return Math.max(momentAt(data, axis, place), 0);
}
