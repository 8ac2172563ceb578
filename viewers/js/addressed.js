// The address layout: each allocation one rectangle over time at its place, on an axis without the holes between segments.
//
// A pixel shows the block that covers its centre; a block too low for that still gets the pixel that its middle lies in,
// where nothing else is. A column begins as a copy of the one before, and only where a block came or went it is painted anew.

import { EDGE, EDGE_FROM, plainId } from "./ids.js";

const MANY = 96;

/** Fill `ids` (column by column, lowest address first): row plus one, `reservedId(data)` for free memory, else 0. */
export function rasterAddressed(data, moments, camera, width, height, ids) {
  const sweep = { data, low: camera.y0, scale: height / (camera.y1 - camera.y0), height, live: [], next: 0, freed: 0, before: -1, background: new Uint32Array(height) };
  for (let column = 0; column < width; column += 1) {
    const moment = moments[column];
    const target = ids.subarray(column * height, (column + 1) * height);
    if (moment < 0) {
      target.fill(0);
      continue;
    }
    // What begins after the column before and lasts a few columns has an edge on its left.
    const later = moments[Math.min(column + EDGE_FROM, width - 1)];
    const { before } = sweep;
    const hasLeftEdge = (row) => before >= 0 && data.start[row] > before && data.end[row] > later;
    if (before >= 0) copyColumn(ids.subarray((column - 1) * height, column * height), target);
    if (moment === before) continue;
    const changed = before < 0 || segmentsChange(data, before, moment) ? null : changedRows(sweep, moment);
    sweep.before = moment;
    if (changed === null) {
      mergeLive(sweep, moment);
      fillReserved(sweep, moment);
      paintRange(sweep, target, 0, height, hasLeftEdge);
    } else {
      for (const row of changed) paintAround(sweep, target, row, hasLeftEdge);
    }
  }
}

/** The id of memory that is reserved and free. */
export function reservedId(data) {
  return data.count + 1 + data.base.length;
}

// The same blocks, and none of them begins here: only edges at the bottom stay.
function copyColumn(source, target) {
  for (let row = 0; row < target.length; row += 1) {
    const id = source[row];
    target[row] = id >= EDGE && row > 0 && plainId(source[row - 1]) === id - EDGE ? id - EDGE : id;
  }
}

function segmentsChange(data, before, moment) {
  const { segmentStart, segmentEnd } = data;
  for (let one = 0; one < segmentStart.length; one += 1) {
    if ((segmentStart[one] > before && segmentStart[one] <= moment) || (segmentEnd[one] > before && segmentEnd[one] <= moment)) return true;
  }
  return false;
}

/** Bring the list of live blocks to a moment; return those that came or went, null if they are many. Affects: the sweep. */
function changedRows(sweep, moment) {
  const { data, before, live } = sweep;
  const changed = [];
  let { next, freed } = sweep;
  while (freed < data.count && data.end[data.byEnd[freed]] <= moment) {
    if (data.start[data.byEnd[freed]] <= before) changed.push(data.byEnd[freed]);
    freed += 1;
    if (changed.length > MANY) return null;
  }
  const gone = changed.length;
  for (; next < data.count && data.start[next] <= moment; next += 1) {
    if (data.end[next] > moment) changed.push(next);
    if (changed.length > MANY) return null;
  }
  Object.assign(sweep, { next, freed });
  changed.forEach((row, index) => {
    const at = firstFrom(live, data, data.place[row]);
    if (index >= gone) live.splice(at, 0, row);
    else live.splice(live.indexOf(row, at), 1);
  });
  return changed;
}

// Those that are over are left out, and the new ones, sorted by themselves, are merged in.
function mergeLive(sweep, moment) {
  const { start, end, place, byEnd, count } = sweep.data;
  const fresh = [];
  while (sweep.next < count && start[sweep.next] <= moment) {
    if (end[sweep.next] > moment) fresh.push(sweep.next);
    sweep.next += 1;
  }
  while (sweep.freed < count && end[byEnd[sweep.freed]] <= moment) sweep.freed += 1;
  fresh.sort((one, other) => place[one] - place[other]);
  const merged = [];
  let at = 0;
  for (const row of sweep.live) {
    if (end[row] <= moment) continue;
    while (at < fresh.length && place[fresh[at]] < place[row]) merged.push(fresh[at++]);
    merged.push(row);
  }
  while (at < fresh.length) merged.push(fresh[at++]);
  sweep.live = merged;
}

function fillReserved({ data, low, scale, background }, moment) {
  background.fill(0);
  const { segmentStart, segmentEnd, segmentPlace, segmentSize } = data;
  for (let one = 0; one < segmentStart.length; one += 1) {
    if (segmentStart[one] > moment || segmentEnd[one] <= moment) continue;
    const bottom = (segmentPlace[one] - low) * scale;
    const top = bottom + segmentSize[one] * scale;
    if (top <= 0 || bottom >= background.length) continue;
    background.fill(reservedId(data), Math.max(Math.ceil(bottom - 0.5), 0), Math.max(Math.ceil(top - 0.5), 0));
  }
}

function paintAround(sweep, target, row, hasLeftEdge) {
  const { data, low, scale, height } = sweep;
  const bottom = (data.place[row] - low) * scale;
  const from = Math.max(Math.floor(bottom), 0);
  const to = Math.min(Math.ceil(bottom + data.block[row] * scale), height);
  if (to > from) paintRange(sweep, target, from, to, hasLeftEdge);
}

/** Paint the rows from `first` up to `stop` of a column: what is reserved, then every live block that reaches into them. */
function paintRange({ data, low, scale, live, background }, target, first, stop, hasLeftEdge) {
  const free = reservedId(data);
  target.set(background.subarray(first, stop), first);
  // Blocks of one moment do not overlap, so that their ends ascend as their places do: at most the one before reaches in.
  const begin = Math.max(firstFrom(live, data, low + first / scale) - 1, 0);
  for (let at = begin; at < live.length; at += 1) {
    const row = live[at];
    const bottom = (data.place[row] - low) * scale;
    if (bottom >= stop) return;
    const top = bottom + data.block[row] * scale;
    const lowest = Math.ceil(bottom - 0.5);
    const from = Math.max(lowest, first);
    const to = Math.min(Math.ceil(top - 0.5), stop);
    if (Math.ceil(top - 0.5) > lowest) {
      if (to <= from) continue;
      target.fill(row + 1 + (hasLeftEdge(row) ? EDGE : 0), from, to);
      if (from === lowest && top - bottom >= EDGE_FROM && target[from] < EDGE) target[from] += EDGE;
    } else {
      const middle = Math.floor((bottom + top) / 2);
      if (middle >= first && middle < stop && (target[middle] === 0 || target[middle] === free)) target[middle] = row + 1;
    }
  }
}

/** The first position in a list by place whose block begins at a place or after it. */
function firstFrom(live, data, place) {
  let from = 0;
  let to = live.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (data.place[live[middle]] < place) from = middle + 1;
    else to = middle;
  }
  return from;
}
