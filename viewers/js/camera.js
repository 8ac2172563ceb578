// What stretch of the map is on screen, and the two horizontal axes. Pure functions: a camera is never changed.

import { highestMoment } from "./mapdata.js";

/** The extent of the horizontal axis: seconds, or moments. Moment m reaches up to moment m + 1. */
export function axisExtent(data, axis) {
  if (axis === "event" || data.seconds === null) return [0, data.numMoments];
  const last = data.seconds[data.numMoments - 1];
  return [0, last > 0 ? last * 1.004 : 1];
}

/** Where a moment begins on an axis. */
export function placeOfMoment(data, axis, moment) {
  if (axis === "event" || data.seconds === null) return moment;
  return moment >= data.numMoments ? axisExtent(data, axis)[1] : data.seconds[moment];
}

/** The moment that holds at a place of an axis, -1 before the first. */
export function momentAt(data, axis, place) {
  if (axis === "event" || data.seconds === null) return Math.min(Math.max(Math.floor(place), -1), data.numMoments - 1);
  return lastNotAbove(data.seconds, place);
}

/** Index of the last value at or below `value` in an ascending array; -1 if there is none. */
export function lastNotAbove(values, value) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The stretches of an axis in which nothing was recorded; there are none on that of events. */
export function gapsOf(data, axis) {
  if (axis === "event" || data.seconds === null) return [];
  return data.base.slice(1).map(([first]) => [data.seconds[first - 1], data.seconds[first]]).filter(([start, end]) => end > start);
}

/** The moment that each column of pixels shows: of those that it covers, the one with the most bytes in use; else -1. */
export function columnMoments(data, axis, camera, width) {
  const moments = new Int32Array(width).fill(-1);
  const step = (camera.x1 - camera.x0) / width;
  const [from, to] = axisExtent(data, axis);
  const gaps = gapsOf(data, axis);
  for (let column = 0; column < width; column += 1) {
    const left = camera.x0 + column * step;
    const right = left + step;
    if (right <= from || left >= to || gaps.some(([start, end]) => left > start && right <= end)) continue;
    const first = Math.max(momentAt(data, axis, left), 0);
    let last = momentAt(data, axis, right);
    // What begins exactly at the right edge belongs to the next column.
    while (last > first && placeOfMoment(data, axis, last) >= right) last -= 1;
    moments[column] = highestMoment(data, first, Math.max(last, first));
  }
  return moments;
}

/** The camera moved by a share of its width and height. */
export function panned(camera, shareX, shareY) {
  const dx = (camera.x1 - camera.x0) * shareX;
  const dy = (camera.y1 - camera.y0) * shareY;
  return { x0: camera.x0 + dx, x1: camera.x1 + dx, y0: camera.y0 + dy, y1: camera.y1 + dy };
}

/** The camera with its stretch `factor` times as long, the place at a share of it kept where it is. */
export function zoomed(camera, factorX, factorY, shareX, shareY) {
  const x = camera.x0 + (camera.x1 - camera.x0) * shareX;
  const y = camera.y0 + (camera.y1 - camera.y0) * shareY;
  return {
    x0: x - (x - camera.x0) * factorX,
    x1: x + (camera.x1 - x) * factorX,
    y0: y - (y - camera.y0) * factorY,
    y1: y + (camera.y1 - y) * factorY,
  };
}

/** The camera kept inside what there is to see, and not closer than a hundredth of a moment or a byte a pixel. */
export function confined(camera, limits) {
  const [x0, x1] = confinedStretch(camera.x0, camera.x1, limits.x0, limits.x1, limits.minX);
  const [y0, y1] = confinedStretch(camera.y0, camera.y1, limits.y0, limits.y1, limits.minY);
  return { x0, x1, y0, y1 };
}

function confinedStretch(from, to, low, high, least) {
  const length = Math.min(Math.max(to - from, Math.min(least, high - low)), high - low);
  const middle = (from + to) / 2;
  const start = Math.min(Math.max(to - from === length ? from : middle - length / 2, low), high - length);
  return [start, start + length];
}
