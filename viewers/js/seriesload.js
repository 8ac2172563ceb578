// The thinned levels of a rank: unpacked, and, where the page holds no map of it, as data that the chart can draw.

import { timesOf } from "./mapdata.js";
import { bytesOfBase64, inflate, packedBytes, unpackColumns } from "./unpack.js";

const loaded = new Map();

/** The columns of a timeline, unpacked once. They are few: no worker is needed. */
export function loadSeries(timeline) {
  if (!loaded.has(timeline)) {
    const { packed, columns } = timeline;
    loaded.set(timeline, inflate(bytesOfBase64(packed), packedBytes(columns), () => {}).then((bytes) => unpackColumns(bytes, columns)));
  }
  return loaded.get(timeline);
}

/** Levels as data to draw: each point a moment. */
export function dataOfSeries(timeline, series) {
  const bands = timeline.categories.map((_, place) => series[`level${place}`]);
  const numMoments = series.event.length;
  const level = new Float64Array(numMoments);
  for (const band of bands) for (let moment = 0; moment < numMoments; moment += 1) level[moment] += band[moment];
  const eventPlaces = Float64Array.from(series.event, (event) => event - 1);
  const base = [0, ...timeline.breaks].map((first) => [first, 0]);
  return { count: 0, numMoments, base, bands, order: bands.map((_, place) => place), ...timesOf(series.time, level, base.map(([first]) => first)), event: series.event, eventPlaces };
}

/** A rank of which only time was recorded, as data without any memory, as long as its lanes. */
export function dataOfNothing(chart) {
  const [from, to] = chart.extent;
  const level = new Float64Array(2);
  return { count: 0, numMoments: 2, base: [[0, 0]], bands: [], order: [], ...timesOf(Float64Array.of(from, to), level, [0]), eventPlaces: null };
}
