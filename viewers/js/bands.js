// The memory as bands by category: each column of pixels the stack of the moment that it shows, and the envelope beside it.

import { momentsWithin, stretchOfColumn } from "./camera.js";
import { channels, HATCHED } from "./inks.js";
import { lowestMoment, sumsAt } from "./levels.js";

/** Fill `ids` (column by column, bottom row first) with the index of the category plus one; `hidden` ones are left out. */
export function rasterBands(data, moments, camera, width, height, ids, hidden) {
  const sums = new Float64Array(data.order.length);
  const shown = data.order.filter((category) => !hidden.has(category));
  const scale = height / (camera.y1 - camera.y0);
  const rowOf = (bytes) => Math.min(Math.max(Math.ceil((bytes - camera.y0) * scale - 0.5), 0), height);
  for (let column = 0; column < width; column += 1) {
    const moment = moments[column];
    const target = ids.subarray(column * height, (column + 1) * height);
    if (moment < 0) {
      target.fill(0);
      continue;
    }
    if (column > 0 && moments[column - 1] === moment) {
      target.set(ids.subarray((column - 1) * height, column * height));
      continue;
    }
    sumsAt(data, moment, sums);
    let [bytes, row] = [0, 0];
    for (const category of shown) {
      bytes += sums[category];
      const top = rowOf(bytes);
      if (top > row) target.fill(category + 1, row, top);
      row = Math.max(row, top);
    }
    target.fill(0, row);
  }
}

/** The inks of categories, by index plus one. */
export function bandInks(categories) {
  const inks = new Uint8Array((categories.length + 1) * 4);
  categories.forEach((one, place) => inks.set([...channels(one.color), one.hatched ? HATCHED : 0], (place + 1) * 4));
  return inks;
}

/** For each column the fewest bytes in use at any moment that it covers; NaN where it shows none. */
export function lowestOfColumns(data, axis, camera, moments, grain) {
  return Float64Array.from(moments, (moment, column) => {
    if (moment < 0) return NaN;
    return data.level[lowestMoment(data, ...momentsWithin(data, axis, ...stretchOfColumn(camera, moments.length, column, grain)))];
  });
}
