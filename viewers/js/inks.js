// The colour of every allocation, and the legend that explains it. Four bytes an id: red, green, blue and flags.

import { formatBytes } from "./format.js";

export const HATCHED = 1;
export const CHOSEN = 2;
export const DIMMED = 4;
export const FREE = 8;

/** What colour can mean. */
export const COLOURS = { category: "category", module: "module", step: "step", size: "size" };

// Six stops of viridis: told apart with any colour vision, and in print.
const RAMP = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];
const UNKNOWN = [139, 146, 156];

/** The colour at a share from 0 to 1 of the ramp. */
export function rampColor(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const stop = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[stop].map((one, channel) => Math.round(one + (RAMP[stop + 1][channel] - one) * (place - stop)));
}

/** The red, green and blue of "#rrggbb". */
export function channels(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

/** The inks of all allocations, then those of unknown bytes at the bottom, then that of free memory.
 *
 * `chosen` tells which rows a search found, null for no search; `selected` is the row whose details are shown, or null. */
export function buildInks(data, view, colour, chosen, selected) {
  const inks = new Uint8Array((data.count + 1 + data.base.length + 1) * 4);
  const colorOf = colorer(data, view, colour);
  const palette = new Map();
  for (let row = 0; row < data.count; row += 1) {
    const key = colorOf.key(row);
    let ink = palette.get(key);
    if (ink === undefined) palette.set(key, (ink = colorOf.ink(key)));
    const at = (row + 1) * 4;
    // A little lighter or darker by stack, so that neighbours of one category are seen apart.
    const shade = ((data.stack[row] * 40503) & 255) / 255 - 0.5;
    for (let channel = 0; channel < 3; channel += 1) inks[at + channel] = Math.min(Math.max(ink[channel] + shade * 26, 0), 255);
    inks[at + 3] = (ink[3] ? HATCHED : 0) | (chosen === null || chosen[row] || row === selected ? 0 : DIMMED) | (row === selected ? CHOSEN : 0);
  }
  for (let epoch = 0; epoch < data.base.length; epoch += 1) inks.set([...UNKNOWN, HATCHED | (chosen ? DIMMED : 0)], (data.count + 1 + epoch) * 4);
  inks[inks.length - 1] = FREE;
  return inks;
}

function colorer(data, view, colour) {
  if (colour === "category") {
    const inks = view.categories.map((one) => [...channels(one.color), one.hatched]);
    return { key: (row) => data.category[row], ink: (key) => inks[key] };
  }
  if (colour === "size") return { key: (row) => Math.floor(Math.log2(data.size[row] + 1) * 2), ink: (key) => [...rampColor((key / 2 - 8) / 24), false] };
  const column = colour === "module" ? data.module : data.step;
  const places = colour === "module" ? modulePlaces(view.modules) : null;
  const last = colour === "module" ? Math.max(view.modules.length - 1, 1) : Math.max(...stepRange(data), 2) - 1;
  const share = (key) => (places ? places[key - 1] : key - 1) / last;
  return { key: (row) => column[row], ink: (key) => (key === 0 ? [...UNKNOWN, true] : [...rampColor(share(key)), false]) };
}

/** For each module its place in the natural order of names, in which blocks.2 comes before blocks.10. */
export function modulePlaces(modules) {
  const order = modules.map((_, index) => index).sort((one, other) => modules[one].localeCompare(modules[other], "en", { numeric: true }));
  const places = new Array(modules.length);
  order.forEach((index, place) => { places[index] = place; });
  return places;
}

function stepRange(data) {
  let [least, most] = [Infinity, 0];
  for (const step of data.step) {
    if (step > 0 && step < least) least = step;
    if (step > most) most = step;
  }
  return [least, most];
}

/** What the colours mean: patches with names, or a ramp with the names of its ends. */
export function legendOf(data, view, colour) {
  if (colour === "category") {
    const used = new Set(data.category);
    const shown = view.categories.map((one, index) => ({ ...one, index })).filter((one) => used.has(one.index) || (one.name === "unknown" && data.base.some(([, bytes]) => bytes)));
    return { patches: shown.sort((one, other) => one.order - other.order) };
  }
  if (colour === "size") return { ramp: [formatBytes(256), formatBytes(2 ** 32)] };
  if (colour === "module") {
    const places = modulePlaces(view.modules);
    if (!view.modules.length) return { ramp: null, none: "no module was recorded" };
    return { ramp: [view.modules[places.indexOf(0)], view.modules[places.indexOf(view.modules.length - 1)]], none: "outside any module" };
  }
  const [, most] = stepRange(data);
  return most ? { ramp: ["before step 1", `step ${most - 1}`], none: "step not known" } : { ramp: null, none: "no step was recorded" };
}
