// The stacked layout where very many allocations are live at once: a tree of sums answers "which one covers this byte?".
//
// The picture is that of stacked.js. There a column costs as much as allocations are live; here it costs as much as came
// and went since the column before, and as many strips as have a pixel.

import { EDGE, EDGE_FROM } from "./ids.js";

/** Fill `ids` as `rasterStacked` does. */
export function rasterByTree(data, moments, camera, width, height, ids) {
  const tree = newSumTree(data.count);
  const sweep = { next: 0, freed: 0 };
  const scale = height / (camera.y1 - camera.y0);
  let before = -1;
  for (let column = 0; column < width; column += 1) {
    const moment = moments[column];
    const target = ids.subarray(column * height, (column + 1) * height);
    if (moment < 0) target.fill(0);
    else if (moment === before) target.set(ids.subarray((column - 1) * height, column * height));
    else {
      follow(tree, sweep, data, before, moment);
      fillByTree(tree, data, moment, camera.y0, scale, target);
      before = moment;
    }
  }
}

// What came and went again between two columns changes nothing.
function follow(tree, sweep, data, before, moment) {
  const { start, inUseEnd, byInUseEnd, size, count } = data;
  for (; sweep.next < count && start[sweep.next] <= moment; sweep.next += 1) {
    if (inUseEnd[sweep.next] > moment) addToTree(tree, sweep.next, size[sweep.next]);
  }
  for (; sweep.freed < count && inUseEnd[byInUseEnd[sweep.freed]] <= moment; sweep.freed += 1) {
    const row = byInUseEnd[sweep.freed];
    if (start[row] <= before && inUseEnd[row] > before) addToTree(tree, row, -size[row]);
  }
}

function fillByTree(tree, data, moment, low, scale, target) {
  const height = target.length;
  const epoch = Math.max(data.base.findLastIndex(([first]) => first <= moment), 0);
  const base = data.base[epoch]?.[1] ?? 0;
  const rowOf = (bytes) => Math.min(Math.max(Math.ceil((bytes - low) * scale - 0.5), 0), height);
  let line = rowOf(base);
  target.fill(data.count + 1 + epoch, 0, line);
  while (line < height) {
    const found = findInTree(tree, low + (line + 0.5) / scale - base);
    if (found === null) break;
    const top = Math.max(rowOf(base + found.below + data.size[found.row]), line + 1);
    target.fill(found.row + 1, line, top);
    // The edge is at the strip's own lowest pixel, and not where the picture begins.
    if (top - line >= EDGE_FROM) target[line] += EDGE;
    line = top;
  }
  target.fill(0, line);
}

/** A tree over so many rows, all of no bytes: each node holds the bytes of the rows that its lowest bit spans. */
export function newSumTree(count) {
  let top = 1;
  while (top * 2 <= count) top *= 2;
  return { sums: new Float64Array(count + 1), count, top };
}

/** Add bytes to a row. */
export function addToTree({ sums, count }, row, bytes) {
  for (let node = row + 1; node <= count; node += node & -node) sums[node] += bytes;
}

/** The row that covers a byte counted from the bottom, and the bytes below it; null above the last one. */
export function findInTree({ sums, count, top }, place) {
  let node = 0;
  let below = 0;
  for (let step = top; step > 0; step >>= 1) {
    if (node + step <= count && below + sums[node + step] <= place) {
      node += step;
      below += sums[node];
    }
  }
  return node < count ? { row: node, below } : null;
}
