// Looking into ascending arrays.

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
