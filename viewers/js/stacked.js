// The stacked layout: at each moment the allocations in use lie on one another, the oldest at the bottom.
//
// Every pixel is asked for at its centre: which allocation covers this byte of the stack at this moment? A sweep over the
// columns keeps the list of live allocations; below the first one that changed, a column equals the one before it.

import { EDGE, EDGE_FROM } from "./ids.js";
import { rasterByTree } from "./tallstack.js";

const TALL = 3000;

/** Fill `ids` (column by column, bottom row first) with the row of the allocation plus one; 0 where there is none. */
export function rasterStacked(data, moments, camera, width, height, ids) {
  (data.mostLive > TALL ? rasterByTree : rasterBySweep)(data, moments, camera, width, height, ids);
}

function rasterBySweep(data, moments, camera, width, height, ids) {
  const sweep = newSweep(data);
  const scale = height / (camera.y1 - camera.y0);
  let before = -1;
  for (let column = 0; column < width; column += 1) {
    const moment = moments[column];
    const target = ids.subarray(column * height, (column + 1) * height);
    if (moment < 0) {
      target.fill(0);
      continue;
    }
    let changed = 0;
    if (before >= 0) {
      target.set(ids.subarray((column - 1) * height, column * height));
      if (moment === before) continue;
      changed = advance(sweep, data, before, moment);
    } else begin(sweep, data, moment);
    fillColumn(sweep, data, changed, camera.y0, scale, target);
    before = moment;
  }
}

function newSweep(data) {
  return { live: new Int32Array(1024), bottom: new Float64Array(1025), count: 0, next: 0, freed: 0, epoch: -1, marks: data.base.map(([first]) => first) };
}

function begin(sweep, data, moment) {
  while (sweep.next < data.count && data.start[sweep.next] <= moment) {
    if (data.inUseEnd[sweep.next] > moment) push(sweep, sweep.next);
    sweep.next += 1;
  }
  // The first of those that end later; the order is by end.
  let low = 0;
  let high = data.count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data.inUseEnd[data.byInUseEnd[middle]] <= moment) low = middle + 1;
    else high = middle;
  }
  sweep.freed = low;
  settle(sweep, data, 0, moment);
}

/** Bring the list to a later moment and return the lowest position that changed. */
function advance(sweep, data, before, moment) {
  const { byInUseEnd, inUseEnd, start } = data;
  let lowest = sweep.count;
  while (sweep.freed < data.count && inUseEnd[byInUseEnd[sweep.freed]] <= moment) {
    const row = byInUseEnd[sweep.freed];
    if (start[row] <= before) lowest = Math.min(lowest, position(sweep.live, lowest, row));
    sweep.freed += 1;
  }
  let kept = lowest;
  for (let at = lowest; at < sweep.count; at += 1) {
    const row = sweep.live[at];
    if (inUseEnd[row] > moment) sweep.live[kept++] = row;
  }
  sweep.count = kept;
  while (sweep.next < data.count && start[sweep.next] <= moment) {
    if (inUseEnd[sweep.next] > moment) push(sweep, sweep.next);
    sweep.next += 1;
  }
  return settle(sweep, data, lowest, moment);
}

// Rows in the list ascend. One that lies above `stop` is already known to be above what changes.
function position(live, stop, row) {
  let low = 0;
  let high = stop;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (live[middle] < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

function push(sweep, row) {
  if (sweep.count === sweep.live.length) {
    const live = new Int32Array(sweep.count * 2);
    live.set(sweep.live);
    const bottom = new Float64Array(sweep.count * 2 + 1);
    bottom.set(sweep.bottom);
    Object.assign(sweep, { live, bottom });
  }
  sweep.live[sweep.count++] = row;
}

/** Sum up the bottoms from a position on, and return the position from which a column must be drawn again. */
function settle(sweep, data, from, moment) {
  let epoch = sweep.epoch < 0 ? 0 : sweep.epoch;
  while (epoch + 1 < sweep.marks.length && sweep.marks[epoch + 1] <= moment) epoch += 1;
  const first = epoch === sweep.epoch ? from : 0;
  sweep.epoch = epoch;
  if (first === 0) sweep.bottom[0] = data.base[epoch]?.[1] ?? 0;
  for (let at = first; at < sweep.count; at += 1) sweep.bottom[at + 1] = sweep.bottom[at] + data.size[sweep.live[at]];
  return first;
}

function fillColumn(sweep, data, from, low, scale, target) {
  const height = target.length;
  const rowOf = (bytes) => Math.min(Math.max(Math.ceil((bytes - low) * scale - 0.5), 0), height);
  let row = rowOf(sweep.bottom[from]);
  if (from === 0) target.fill(data.count + 1 + sweep.epoch, 0, row);
  for (let at = from; at < sweep.count && row < height; at += 1) {
    const top = rowOf(sweep.bottom[at + 1]);
    if (top > row) {
      target.fill(sweep.live[at] + 1, row, top);
      // A strip of some height gets an edge, so that it is seen apart from the one below.
      if (top - row >= EDGE_FROM) target[row] += EDGE;
      row = top;
    }
  }
  target.fill(0, row);
}

/** The bytes below an allocation at a moment: where its strip lies in the stack. */
export function bottomOf(data, wanted, moment) {
  const epoch = data.base.findLastIndex(([first]) => first <= moment);
  let bytes = data.base[epoch]?.[1] ?? 0;
  for (let row = 0; row < wanted; row += 1) if (data.start[row] <= moment && data.inUseEnd[row] > moment) bytes += data.size[row];
  return bytes;
}
