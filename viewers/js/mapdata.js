// The allocations of one map as arrays, and the orders and sums that drawing needs. Runs in the worker; pure functions.
//
// A moment is the state after one event. Allocation k is in use from moment start[k] up to, and without, inUseEnd[k];
// its block is taken until end[k].

import { foldsOf, placesOf } from "./folds.js";
import { categoryCheckpoints, extremesOfBlocks } from "./levels.js";

/** What is drawn and asked of, made from the columns of a packed map. */
export function buildMapData(columns, view) {
  const { start, inUse, pending, size } = columns;
  const count = start.length;
  const inUseEnd = new Uint32Array(count);
  const end = new Uint32Array(count);
  for (let row = 0; row < count; row += 1) {
    inUseEnd[row] = start[row] + inUse[row];
    end[row] = inUseEnd[row] + pending[row];
  }
  const level = levelsOf(start, inUseEnd, size, view.num_moments, view.base);
  const byInUseEnd = orderBy(inUseEnd, view.num_moments);
  const checkpoints = categoryCheckpoints({ ...columns, inUseEnd, byInUseEnd, count }, view.num_moments, view.categories.length);
  return {
    ...columns,
    count,
    numMoments: view.num_moments,
    base: view.base,
    inUseEnd,
    end,
    block: columns.rounding ? size.map((bytes, row) => bytes + columns.rounding[row]) : size,
    byInUseEnd,
    byEnd: orderBy(end, view.num_moments),
    mostLive: mostLiveOf(start, inUseEnd, view.num_moments),
    checkpoints,
    unknownCategory: view.categories.findIndex((one) => one.name === "unknown"),
    order: view.categories.map((_, place) => place).sort((one, other) => view.categories[one].order - view.categories[other].order),
    ...timesOf(columns.time, level, view.base.map(([first]) => first)),
  };
}

/** What both axes and the envelope need: levels with their extremes, seconds (null without times), places and folds. */
export function timesOf(time, level, firsts) {
  const seconds = time ? Float64Array.from(time, (ns) => ns / 1e9) : null;
  const folds = seconds ? foldsOf(seconds, firsts) : [];
  return {
    level,
    highest: extremesOfBlocks(level, 1),
    lowest: extremesOfBlocks(level, -1),
    seconds,
    folds,
    places: seconds && placesOf(seconds, folds),
    // Moments count events of this device; thinned levels say which row of the events table each is.
    eventPlaces: null,
  };
}

/** How many allocations are live at the moment of the most of them. */
export function mostLiveOf(start, end, numMoments) {
  const changes = new Int32Array(numMoments + 1);
  for (let row = 0; row < start.length; row += 1) {
    changes[start[row]] += 1;
    changes[end[row]] -= 1;
  }
  let [live, most] = [0, 0];
  for (const change of changes) {
    live += change;
    most = Math.max(most, live);
  }
  return most;
}

/** For each moment the bytes in use: of all allocations, and those at the bottom that no block makes up. */
export function levelsOf(start, end, size, numMoments, base) {
  const level = new Float64Array(numMoments + 1);
  for (let row = 0; row < start.length; row += 1) {
    level[start[row]] += size[row];
    level[end[row]] -= size[row];
  }
  for (let moment = 1; moment < numMoments; moment += 1) level[moment] += level[moment - 1];
  base.forEach(([first, bytes], epoch) => {
    const last = epoch + 1 < base.length ? base[epoch + 1][0] : numMoments;
    for (let moment = first; bytes && moment < last; moment += 1) level[moment] += bytes;
  });
  return level.subarray(0, numMoments);
}

/** The rows in the order of a moment that each has, by counting. */
export function orderBy(moments, numMoments) {
  const places = new Uint32Array(numMoments + 2);
  for (const moment of moments) places[moment + 1] += 1;
  for (let moment = 1; moment < places.length; moment += 1) places[moment] += places[moment - 1];
  const order = new Uint32Array(moments.length);
  for (let row = 0; row < moments.length; row += 1) {
    order[places[moments[row]]] = row;
    places[moments[row]] += 1;
  }
  return order;
}
