// The panel beside the map: everything that is known of one allocation, as rows of texts; or how to read the map.

import { breakable, element, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { placeOfMoment } from "./camera.js";
import { framesOf, nameOf, whereAt } from "./rows.js";
import { secondsText } from "./ticks.js";

/** What is known of an allocation: pairs of label and text, in the order in which they are shown. */
export function factsOf(data, view, row) {
  const owner = data.owner[row] ? view.owners[data.owner[row] - 1] : null;
  const saved = data.saved[row] ? view.saved_for[data.saved[row] - 1] : null;
  const [, dtype, shape] = owner ?? saved ?? [null, null, null];
  const facts = [
    ["requested", `${formatBytes(data.size[row])} (${data.size[row].toLocaleString("en-US")} B)`],
    ["block", data.rounding ? `${formatBytes(data.block[row])} (${data.block[row].toLocaleString("en-US")} B)` : null],
    ["category", view.categories[data.category[row]].label],
    ["how it is known", view.decisions[data.decision[row]]],
    ["owner", owner && owner[0]],
    ["saved for", saved && saved[0]],
    ["shape", shape],
    ["dtype", dtype],
    ["module", data.module[row] ? view.modules[data.module[row] - 1] : null],
    ["allocated", data.initial[row] ? "before the recording" : momentText(data, view, data.start[row])],
    ["freed", data.inUseEnd[row] >= data.numMoments ? "never: lives to the end" : momentText(data, view, data.inUseEnd[row])],
    ["lifetime", lifetimeText(data, row)],
    ["awaited a stream", data.end[row] > data.inUseEnd[row] ? `${(data.end[row] - data.inUseEnd[row]).toLocaleString("en-US")} events` : null],
    ["address", addressText(data, view, row)],
  ];
  return facts.filter(([, text]) => text !== null && text !== undefined);
}

/** "event 1,234 · 0.5120 s · step 2 · forward". */
export function momentText(data, view, moment) {
  const time = data.seconds === null ? null : secondsText(data.seconds[Math.min(moment, data.numMoments - 1)], 1e-5);
  return [`moment ${moment.toLocaleString("en-US")}`, time, whereAt(view, moment)].filter(Boolean).join(" · ");
}

function lifetimeText(data, row) {
  const events = `${(data.inUseEnd[row] - data.start[row]).toLocaleString("en-US")} events`;
  if (data.seconds === null) return events;
  const from = data.seconds[data.start[row]];
  const to = data.seconds[Math.min(data.inUseEnd[row], data.numMoments - 1)];
  return `${events} · ${secondsText(to - from, to - from > 0.1 ? 1e-3 : 1e-6)}`;
}

function addressText(data, view, row) {
  const range = view.ranges.findLast(([, place]) => place <= data.place[row]);
  return range ? `0x${(BigInt(range[0]) + BigInt(data.place[row] - range[1])).toString(16)}` : null;
}

/** The panel for one allocation. `act` gives what its buttons do. */
export function detailsPanel(data, view, row, act) {
  const category = view.categories[data.category[row]];
  const frames = framesOf(data, view, row);
  const name = nameOf(data, view, row) ?? (data.module[row] ? view.modules[data.module[row] - 1] : category.label);
  const rows = factsOf(data, view, row).map(([label, text]) => element("div", { "data-fact": label }, element("dt", {}, label), element("dd", {}, breakable(text))));
  return [
    element("div", { class: "details-head" }, swatch(category.color, category.hatched), element("strong", {}, breakable(name)), element("button", { type: "button", class: "quiet", onclick: act.close, "aria-label": "close" }, "×")),
    element("div", { class: "details-size number" }, formatBytes(data.size[row])),
    element(
      "div",
      { class: "details-actions" },
      element("button", { type: "button", class: "quiet", id: "same-stack", onclick: act.sameStack, disabled: data.stack[row] === 0 }, "Same stack"),
      element("button", { type: "button", class: "quiet", onclick: act.zoomTo }, "Zoom to it"),
      element("button", { type: "button", class: "quiet", onclick: act.showMoment }, "Show its moment"),
      element("button", { type: "button", class: "quiet", onclick: act.copy }, "Copy"),
    ),
    element("dl", {}, rows),
    element("h3", {}, frames.length ? "Stack, innermost first" : "No stack was recorded"),
    element("ol", { class: "mono stack" }, frames.map((frame) => element("li", {}, breakable(frame)))),
  ];
}

/** The same as text, for the clipboard. */
export function detailsText(data, view, row) {
  return [...factsOf(data, view, row).map(([label, text]) => `${label}: ${text}`), "stack:", ...framesOf(data, view, row).map((frame) => `  ${frame}`)].join("\n");
}

/** Where the strip of an allocation is on the horizontal axis, with a margin. */
export function stretchOf(data, axis, row) {
  const from = placeOfMoment(data, axis, data.start[row]);
  const to = placeOfMoment(data, axis, Math.min(data.inUseEnd[row], data.numMoments));
  const margin = Math.max((to - from) * 0.6, axis === "event" ? 3 : 1e-7);
  return [from - margin, to + margin];
}
