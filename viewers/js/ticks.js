// Places and texts of ticks: bytes in powers of two, times and counts in 1, 2, 5. Pure functions.

import { formatBytes } from "./format.js";
import { placeOfSecond, recordedParts, secondOfPlace } from "./folds.js";

const UNITS_OF_TICKS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const UNIT_STEPS = [1, 2, 5];

/** Ticks of a byte ruler: multiples of a power of two, at most `most` of them, all in one unit with two decimals at most. */
export function byteTicks(low, high, most) {
  let step = 1;
  while ((high - low) / step > most) step *= 2;
  let power = 0;
  while (power < UNITS_OF_TICKS.length - 1 && high >= 1024 ** (power + 1)) power += 1;
  while (power && (step * 4) % 1024 ** power) power -= 1;
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    ticks.push({ value, text: value === 0 ? "0" : `${(value / 1024 ** power).toLocaleString("en-US", { maximumFractionDigits: 2 })} ${UNITS_OF_TICKS[power]}` });
  }
  return ticks.length ? ticks : [{ value: (low + high) / 2, text: formatBytes(Math.round((low + high) / 2)) }];
}

/** Ticks of the horizontal ruler: seconds or moments. */
export function axisTicks(low, high, most, inSeconds) {
  const step = tickStep(high - low, most, inSeconds ? 1e-9 : 1);
  const ticks = [];
  const first = Math.ceil(low / step);
  for (let at = first; at * step <= high; at += 1) ticks.push({ value: at * step, text: inSeconds ? secondsText(at * step, step) : Math.round(at * step).toLocaleString("en-US") });
  return ticks;
}

function tickStep(length, most, unit) {
  let step = unit;
  for (let at = 1; length / step > most; at += 1) step = unit * UNIT_STEPS[at % 3] * 10 ** Math.floor(at / 3);
  return step;
}

/** Ticks of the folded clock between two places: `value` is the place; none lies in a gap. */
export function clockTicks(folds, from, to, most) {
  const step = tickStep(to - from, most, 1e-9);
  return recordedParts(folds, from, to).flatMap(([low, high]) => {
    const [start, end] = [secondOfPlace(folds, low), secondOfPlace(folds, high)];
    const ticks = [];
    for (let at = Math.ceil(start / step); at * step <= end; at += 1) ticks.push({ value: placeOfSecond(folds, at * step), text: secondsText(at * step, step) });
    return ticks;
  });
}

/** A time with as many digits as a step of that length needs. */
export function secondsText(seconds, step) {
  if (seconds === 0) return "0 s";
  const [unit, scale] = Math.abs(seconds) >= 1 || step >= 1 ? ["s", 1] : step >= 1e-3 || Math.abs(seconds) >= 1e-3 ? ["ms", 1e3] : ["µs", 1e6];
  const digits = Math.min(Math.max(0, Math.ceil(-Math.log10(step * scale) - 1e-9)), 9);
  return `${(seconds * scale).toFixed(digits)} ${unit}`;
}
