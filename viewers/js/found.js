// The allocations that a search found, as data to draw by themselves: the timeline then shows them alone.

import { categoryCheckpoints, extremesOfBlocks } from "./levels.js";
import { levelsOf, orderBy } from "./mapdata.js";

/** The chosen rows of a map as data of the same kind, on the same axes; `chosen` tells for each row whether it is one. */
export function dataOfChosen(data, chosen) {
  const rows = Uint32Array.from(Array.from(chosen.keys()).filter((row) => chosen[row]));
  const of = (column) => column.constructor.from(rows, (row) => column[row]);
  const [start, inUseEnd, size, category, initial] = [data.start, data.inUseEnd, data.size, data.category, data.initial].map(of);
  const base = data.base.map(([first]) => [first, 0]);
  const byInUseEnd = orderBy(inUseEnd, data.numMoments);
  const level = levelsOf(start, inUseEnd, size, data.numMoments, base);
  const count = rows.length;
  const checkpoints = categoryCheckpoints({ start, inUseEnd, byInUseEnd, size, category, count }, data.numMoments, data.checkpoints.numCategories);
  return { ...data, count, start, inUseEnd, size, category, initial, byInUseEnd, base, level, checkpoints, unknownCategory: -1, highest: extremesOfBlocks(level, 1), lowest: extremesOfBlocks(level, -1) };
}
