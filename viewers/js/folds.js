// The wall clock with its gaps folded: a stretch in which nothing was recorded is as wide as a thumb, however long it was.
//
// Seconds are those since the first moment; a place is where they lie on the folded axis. Pure functions, in the worker too.

/** How wide a gap is at most, as a share of what was recorded; and how wide all of them together. */
const WIDEST = 0.03;
const TOGETHER = 0.25;

/**
 * The gaps before the moments `firsts`, in order: their seconds (`start`, `end`) and their places (`from`, `to`). How wide they
 * are goes by what was recorded `within` a stretch of seconds, which is what is looked at: all of it by default.
 */
export function foldsOf(seconds, firsts, within = [-Infinity, Infinity]) {
  const inside = (second) => Math.min(Math.max(second, within[0]), within[1]);
  const gaps = firsts.filter((first) => first > 0 && first < seconds.length).map((first) => [seconds[first - 1], seconds[first]]).filter(([start, end]) => end > start);
  const whole = seconds.length ? inside(seconds[seconds.length - 1]) - inside(seconds[0]) : 0;
  const recorded = gaps.reduce((length, [start, end]) => length - (inside(end) - inside(start)), whole);
  const widest = recorded > 0 ? recorded * Math.min(WIDEST, TOGETHER / gaps.length) : Infinity;
  let taken = 0;
  return gaps.map(([start, end]) => {
    const wide = Math.min(end - start, widest);
    const from = start - taken;
    taken += end - start - wide;
    return { start, end, from, to: from + wide };
  });
}

// The last fold whose `key` is at or below a value.
function lastFold(folds, key, value) {
  let [low, high] = [0, folds.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (folds[middle][key] <= value) low = middle + 1;
    else high = middle;
  }
  return folds[low - 1];
}

/** Where a second lies on the axis. */
export function placeOfSecond(folds, second) {
  const fold = lastFold(folds, "start", second);
  if (fold === undefined) return second;
  if (second >= fold.end) return fold.to + second - fold.end;
  return fold.from + ((second - fold.start) * (fold.to - fold.from)) / (fold.end - fold.start);
}

/** Which second lies at a place of the axis. */
export function secondOfPlace(folds, place) {
  const fold = lastFold(folds, "from", place);
  if (fold === undefined) return place;
  if (place >= fold.to) return fold.end + place - fold.to;
  return fold.start + ((place - fold.from) * (fold.end - fold.start)) / (fold.to - fold.from);
}

/** The places of ascending seconds. */
export function placesOf(seconds, folds) {
  if (!folds.length) return seconds;
  const places = new Float64Array(seconds.length);
  let [next, shift] = [0, 0];
  for (let at = 0; at < seconds.length; at += 1) {
    while (next < folds.length && seconds[at] >= folds[next].end) {
      shift = folds[next].to - folds[next].end;
      next += 1;
    }
    places[at] = seconds[at] + shift;
  }
  return places;
}

/** The parts of a stretch of places that lie between folds, as pairs of places; with the folds themselves, if wanted. */
export function recordedParts(folds, from, to, withFolds = false) {
  const parts = [];
  let at = from;
  for (const fold of folds) {
    if (fold.to <= at || fold.from >= to) continue;
    if (fold.from > at) parts.push([at, fold.from]);
    if (withFolds) parts.push([Math.max(fold.from, at), Math.min(fold.to, to)]);
    at = fold.to;
  }
  if (at < to) parts.push([at, to]);
  return parts;
}
