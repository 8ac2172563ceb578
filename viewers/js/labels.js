// Labels on a chart that make way for one another: each takes the first of its places that is free. Pure functions.

const APART = 3;
/** Half of what a point covers, with the room between labels. */
const POINT = 4;

/**
 * Labels with a place each. A label has `wide` and `high` and tries its `places` (left top corners) in order, then every row
 * of the box, and takes the first of all where none is free; all are kept inside `box`. Earlier labels have the right of way,
 * and before all labels the `points` that are drawn: a label beside its point does not cover it.
 */
export function placedLabels(labels, box, points = []) {
  const taken = points.map(([x, y]) => ({ left: x - POINT, top: y - POINT, wide: 2 * POINT, high: 2 * POINT }));
  return labels.map((label) => {
    const [[first]] = label.places;
    const rows = Array.from({ length: Math.floor(box.height / (label.high + APART)) }, (_, row) => [first, box.top + row * (label.high + APART)]);
    const tries = [...label.places, ...rows].map(([left, top]) => ({
      left: Math.max(Math.min(left, box.left + box.width - label.wide), box.left),
      top: Math.max(Math.min(top, box.top + box.height - label.high), box.top),
    }));
    const free = tries.find((place) => taken.every((other) => isApart(place, label, other)));
    const place = { ...(free ?? tries[0]), wide: label.wide, high: label.high };
    taken.push(place);
    return { ...label, ...place };
  });
}

function isApart(place, { wide, high }, other) {
  return place.left + wide + APART <= other.left || other.left + other.wide + APART <= place.left || place.top + high + APART <= other.top || other.top + other.high + APART <= place.top;
}

/** Places beside a vertical line at x: right of it and left of it, row by row from the top. */
export function besideLine(x, top, wide, high, rows = 6) {
  return Array.from({ length: rows }, (_, row) => top + row * (high + APART)).flatMap((y) => [[x + 6, y], [x - 6 - wide, y]]);
}

/** Places around a point: above it on either side, beside it, below it, and farther away. */
export function aroundPoint(x, y, wide, high) {
  const [right, left] = [x + 9, x - 9 - wide];
  return [-high - 6, -high / 2, 8, -2 * high - 10, high + 12, 2 * high + 16].flatMap((down) => [[right, y + down], [left, y + down]]);
}
