// The address layout: each allocation one rectangle over time at its place, on an axis without the holes between segments.
//
// A pixel shows the block that covers its centre; a block too low for that still gets the pixel that its middle lies in,
// where nothing else is.

import { EDGE, EDGE_FROM, plainId } from "./ids.js";

/** Fill `ids` (column by column, lowest address first): row plus one, `reservedId(data)` for free memory, else 0. */
export function rasterAddressed(data, moments, camera, width, height, ids) {
  const scale = height / (camera.y1 - camera.y0);
  const sweep = { live: [], next: 0, freed: 0 };
  let before = -1;
  for (let column = 0; column < width; column += 1) {
    const moment = moments[column];
    const target = ids.subarray(column * height, (column + 1) * height);
    if (moment < 0) target.fill(0);
    else if (moment === before) copyColumn(ids.subarray((column - 1) * height, column * height), target);
    else {
      sweep.live = liveByPlace(sweep, data, moment);
      fillReserved(data, moment, camera.y0, scale, target);
      // What begins after the column before and lasts a few columns has an edge on its left.
      const later = moments[Math.min(column + EDGE_FROM, width - 1)];
      fillBlocks(sweep.live, data, camera.y0, scale, target, (row) => before >= 0 && data.start[row] > before && data.end[row] > later);
      before = moment;
    }
  }
}

// The same blocks, and none of them begins here: only edges at the bottom stay.
function copyColumn(source, target) {
  for (let row = 0; row < target.length; row += 1) {
    const id = source[row];
    target[row] = id >= EDGE && row > 0 && plainId(source[row - 1]) === id - EDGE ? id - EDGE : id;
  }
}

/** The id of memory that is reserved and free. */
export function reservedId(data) {
  return data.count + 1 + data.base.length;
}

// Those that are over are left out, and the new ones, sorted by themselves, are merged in.
function liveByPlace(sweep, data, moment) {
  const { start, end, place } = data;
  const fresh = [];
  while (sweep.next < data.count && start[sweep.next] <= moment) {
    if (end[sweep.next] > moment) fresh.push(sweep.next);
    sweep.next += 1;
  }
  fresh.sort((one, other) => place[one] - place[other]);
  const merged = [];
  let at = 0;
  for (const row of sweep.live) {
    if (end[row] <= moment) continue;
    while (at < fresh.length && place[fresh[at]] < place[row]) merged.push(fresh[at++]);
    merged.push(row);
  }
  while (at < fresh.length) merged.push(fresh[at++]);
  return merged;
}

function fillReserved(data, moment, low, scale, target) {
  target.fill(0);
  const { segmentStart, segmentEnd, segmentPlace, segmentSize } = data;
  for (let one = 0; one < segmentStart.length; one += 1) {
    if (segmentStart[one] > moment || segmentEnd[one] <= moment) continue;
    const bottom = (segmentPlace[one] - low) * scale;
    const top = bottom + segmentSize[one] * scale;
    if (top <= 0 || bottom >= target.length) continue;
    target.fill(reservedId(data), Math.max(Math.ceil(bottom - 0.5), 0), Math.max(Math.ceil(top - 0.5), 0));
  }
}

function fillBlocks(live, data, low, scale, target, hasLeftEdge) {
  const height = target.length;
  const free = reservedId(data);
  let at = firstAbove(live, data, low);
  for (; at < live.length; at += 1) {
    const row = live[at];
    const bottom = (data.place[row] - low) * scale;
    if (bottom >= height) return;
    const top = bottom + data.block[row] * scale;
    const from = Math.max(Math.ceil(bottom - 0.5), 0);
    const to = Math.min(Math.ceil(top - 0.5), height);
    if (to > from) {
      target.fill(row + 1 + (hasLeftEdge(row) ? EDGE : 0), from, to);
      if (to - from >= EDGE_FROM && target[from] < EDGE) target[from] += EDGE;
    } else {
      const middle = Math.floor((bottom + top) / 2);
      if (middle >= 0 && middle < height && (target[middle] === 0 || target[middle] === free)) target[middle] = row + 1;
    }
  }
}

// Blocks of one moment do not overlap, so that their ends ascend as their places do.
function firstAbove(live, data, low) {
  let from = 0;
  let to = live.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (data.place[live[middle]] + data.block[live[middle]] <= low) from = middle + 1;
    else to = middle;
  }
  return from;
}
