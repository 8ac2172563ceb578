// Numbers for people, where Python cannot write them beforehand: what the pointer shows on a curve.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** The same text as memtrace.units.format_bytes, to the last digit (compared in tests/browser); NaN is not recorded. */
export function formatBytes(bytes) {
  if (bytes === null || Number.isNaN(bytes)) return "not recorded";
  let value = Math.abs(bytes);
  let power = 0;
  while (value >= 1023.5 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  const sign = bytes < 0 ? "-" : "";
  if (power === 0) return `${sign}${Math.trunc(value)} B`;
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${sign}${roundedHalfEven(Math.abs(bytes), power, digits)} ${UNITS[power]}`;
}

// toFixed rounds ties away from zero, Python rounds them to even: 1152 bytes are 1.12 KiB there and would be 1.13 here.
// Whole bytes over a power of 1024 tie often, so the rounding is done on exact integers.
function roundedHalfEven(bytes, power, digits) {
  const divisor = 1024n ** BigInt(power);
  const scaled = BigInt(bytes) * 10n ** BigInt(digits);
  let quotient = scaled / divisor;
  const twice = (scaled % divisor) * 2n;
  if (twice > divisor || (twice === divisor && quotient % 2n === 1n)) quotient += 1n;
  const text = quotient.toString().padStart(digits + 1, "0");
  return digits ? `${text.slice(0, -digits)}.${text.slice(-digits)}` : text;
}

/** A moment on the wall-clock axis, to the microsecond where the axis can show it. */
export function formatSeconds(seconds) {
  return seconds < 1 ? `${(seconds * 1000).toFixed(3)} ms` : `${seconds.toFixed(6)} s`;
}

/** The same text as memtrace.units.format_ns, for whole ns (compared in tests/browser). */
export function formatNs(ns) {
  if (ns >= 60e9) {
    const seconds = Number(fixedHalfEven(ns / 1e9, 0));
    return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }
  for (const [factor, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (ns < factor * 0.9995) continue;
    const value = ns / factor;
    return `${fixedHalfEven(value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${unit}`;
  }
  return `${ns} ns`;
}

// toFixed takes a tie upwards, Python to the even digit. A double that is a tie at two digits or fewer has at most three
// binary places, so that the products here are exact.
function fixedHalfEven(value, digits) {
  const scaled = value * 10 ** digits;
  const isTie = Number.isInteger(value * 8) && (scaled * 2) % 2 === 1;
  if (!isTie) return value.toFixed(digits);
  const below = Math.floor(scaled);
  return ((below % 2 ? below + 1 : below) / 10 ** digits).toFixed(digits);
}
