// The bytes in use at a moment by category: of all allocations, by way of sums that are kept for every 64th moment; or of
// the thinned levels of a rank without a map. Runs in the worker and in the page; pure functions.

export const BLOCK = 64;

/** For each block of moments the sums by category before it, and the next rows to begin and to end there. */
export function categoryCheckpoints({ start, inUseEnd, byInUseEnd, size, category, count }, numMoments, numCategories) {
  const blocks = Math.ceil(numMoments / BLOCK);
  const sums = new Float64Array(blocks * numCategories);
  const begins = new Uint32Array(blocks);
  const ends = new Uint32Array(blocks);
  const running = new Float64Array(numCategories);
  let [next, freed] = [0, 0];
  for (let block = 0; block < blocks; block += 1) {
    const first = block * BLOCK;
    for (; next < count && start[next] < first; next += 1) running[category[next]] += size[next];
    for (; freed < count && inUseEnd[byInUseEnd[freed]] < first; freed += 1) running[category[byInUseEnd[freed]]] -= size[byInUseEnd[freed]];
    sums.set(running, block * numCategories);
    begins[block] = next;
    ends[block] = freed;
  }
  return { sums, begins, ends, numCategories };
}

/** Write into `out` the bytes in use at a moment, by index of category. */
export function sumsAt(data, moment, out) {
  if (data.bands) {
    for (let place = 0; place < out.length; place += 1) out[place] = data.bands[place][moment];
    return out;
  }
  const { start, inUseEnd, byInUseEnd, size, category, count, checkpoints } = data;
  const block = Math.floor(moment / BLOCK);
  const { sums, begins, ends, numCategories } = checkpoints;
  for (let place = 0; place < numCategories; place += 1) out[place] = sums[block * numCategories + place];
  for (let row = begins[block]; row < count && start[row] <= moment; row += 1) out[category[row]] += size[row];
  for (let at = ends[block]; at < count && inUseEnd[byInUseEnd[at]] <= moment; at += 1) out[category[byInUseEnd[at]]] -= size[byInUseEnd[at]];
  // What was live before the recording and no block makes up.
  if (data.unknownCategory >= 0) out[data.unknownCategory] += data.base.findLast(([first]) => first <= moment)?.[1] ?? 0;
  return out;
}

/** For each run of 64 moments the one with the most bytes (`sign` 1) or the fewest (-1). */
export function extremesOfBlocks(level, sign) {
  const found = new Uint32Array(Math.ceil(level.length / BLOCK));
  for (let block = 0; block < found.length; block += 1) {
    found[block] = extremeIn(level, block * BLOCK, Math.min((block + 1) * BLOCK, level.length), sign);
  }
  return found;
}

function extremeIn(level, first, stop, sign) {
  let best = first;
  for (let moment = first + 1; moment < stop; moment += 1) if ((level[moment] - level[best]) * sign > 0) best = moment;
  return best;
}

function extremeMoment(level, ofBlocks, first, last, sign) {
  const from = Math.ceil(first / BLOCK);
  const to = Math.floor((last + 1) / BLOCK);
  if (from >= to) return extremeIn(level, first, last + 1, sign);
  let best = extremeIn(level, first, Math.max(from * BLOCK, first + 1), sign);
  for (let block = from; block < to; block += 1) if ((level[ofBlocks[block]] - level[best]) * sign > 0) best = ofBlocks[block];
  for (let moment = to * BLOCK; moment <= last; moment += 1) if ((level[moment] - level[best]) * sign > 0) best = moment;
  return best;
}

/** The first moment with the most bytes from `first` to `last`, both included. */
export function highestMoment(data, first, last) {
  return extremeMoment(data.level, data.highest, first, last, 1);
}

/** The first moment with the fewest bytes from `first` to `last`, both included. */
export function lowestMoment(data, first, last) {
  return extremeMoment(data.level, data.lowest, first, last, -1);
}
