// What stretch of the chart is on screen, and the two horizontal axes. Pure functions: a camera is never changed.

import { placeOfSecond } from "./folds.js";
import { highestMoment } from "./levels.js";
import { lastNotAbove } from "./search.js";

/** Whether an axis is the wall clock; without times there is only that of events. */
export function isTimed(data, axis) {
  return axis !== "event" && data.seconds !== null;
}

/** The extent of the horizontal axis: places of the folded clock, or events. Moment m reaches up to moment m + 1. */
export function axisExtent(data, axis) {
  if (!isTimed(data, axis)) return [eventPlace(data, 0), eventPlace(data, data.numMoments)];
  return data.extent ?? [0, Math.max(data.places[data.numMoments - 1], 0) * 1.004 || 1];
}

function eventPlace({ eventPlaces }, moment) {
  if (eventPlaces === null) return moment;
  return moment < eventPlaces.length ? eventPlaces[moment] : eventPlaces[eventPlaces.length - 1] + 1;
}

/** Where a moment begins on an axis. */
export function placeOfMoment(data, axis, moment) {
  if (!isTimed(data, axis)) return eventPlace(data, moment);
  return moment >= data.numMoments ? axisExtent(data, axis)[1] : data.places[moment];
}

/** Where a time in ns since the first moment lies on an axis; with `after`, just behind the events up to it. */
export function placeOfNs(data, axis, ns, after = false) {
  if (isTimed(data, axis)) return placeOfSecond(data.folds, ns / 1e9);
  if (data.seconds === null) return 0;
  const last = lastNotAbove(data.seconds, ns / 1e9);
  return eventPlace(data, after || data.seconds[last] < ns / 1e9 ? last + 1 : Math.max(last, 0));
}

/** The moment that holds at a place of an axis, -1 before the first. */
export function momentAt(data, axis, place) {
  if (isTimed(data, axis)) return lastNotAbove(data.places, place);
  if (data.eventPlaces !== null) return lastNotAbove(data.eventPlaces, place);
  return Math.min(Math.max(Math.floor(place), -1), data.numMoments - 1);
}

/** The stretches of an axis in which nothing was recorded; there are none on that of events. */
export function gapsOf(data, axis) {
  return isTimed(data, axis) ? data.folds.map(({ from, to }) => [from, to]) : [];
}

/** The first and last moment of those that lie in a stretch of an axis, or hold at its start. */
export function momentsWithin(data, axis, from, to) {
  const first = Math.max(momentAt(data, axis, from), 0);
  let last = momentAt(data, axis, to);
  // What begins exactly at the right edge belongs to the next column.
  while (last > first && placeOfMoment(data, axis, last) >= to) last -= 1;
  return [first, Math.max(last, first)];
}

/** The stretch that a column shows: its own, or, with a `grain` of steps narrower than that, all of the steps that it touches. */
export function stretchOfColumn(camera, width, column, grain) {
  const step = (camera.x1 - camera.x0) / width;
  const [left, right] = [camera.x0 + column * step, camera.x0 + (column + 1) * step];
  if (!grain) return [left, right];
  const [first, last] = [lastNotAbove(grain.from, left), lastNotAbove(grain.from, right)];
  const isIn = (at, place) => at >= 0 && place < grain.to[at];
  return [isIn(first, left) ? grain.from[first] : left, isIn(last, right) && grain.from[last] < right ? grain.to[last] : right];
}

/** The moment that each column of pixels shows: of those that it covers, the one with the most bytes in use; else -1. */
export function columnMoments(data, axis, camera, width, grain = null) {
  const moments = new Int32Array(width).fill(-1);
  const step = (camera.x1 - camera.x0) / width;
  const [from, to] = [placeOfMoment(data, axis, 0), axisExtent(data, axis)[1]];
  const gaps = gapsOf(data, axis);
  for (let column = 0; column < width; column += 1) {
    const left = camera.x0 + column * step;
    const right = left + step;
    if (right <= from || left >= to || gaps.some(([start, end]) => left > start && right <= end)) continue;
    moments[column] = highestMoment(data, ...momentsWithin(data, axis, ...stretchOfColumn(camera, width, column, grain)));
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
