// What the bytes of one moment are: by category, module and operation, or by stack; as a figure and as a table.

import { breakable, columnHead, element, section, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { addPath, icicle, newNode } from "./icicle.js";
import { momentBar, shownMoment } from "./moments.js";
import { frameRowsOf, framesOf, headlineFrame, liveAt, operationOf } from "./rows.js";
import { copyText, saveCsv } from "./save.js";
import { modulesSection, stacksSection } from "./tables.js";

const MOST_ROWS = 200;
const MOST_CPP_FRAMES = 5;
/** Class of frames of C++ that are neither a node of backward nor an operator. */
const PLAIN = 1;
const OUTSIDE = "outside any module";

/** The view of one rank. */
export function newPeakView(app, rank) {
  if (!rank.map) {
    return { nodes: [stacksSection(rank), modulesSection(rank)] };
  }
  const node = element("div", { id: "peak" });
  const show = () => app.withMap(node, (data, view) => node.replaceChildren(...peakParts(app, data, view, show)));
  return { nodes: [node], draw: show, moment: show };
}

function peakParts(app, data, view, again) {
  const { by, weigh } = app.state;
  const moment = shownMoment(app, data, view);
  const rows = liveAt(data, moment);
  const weights = weightsOf(data, rows, weigh);
  const write = weigh === "bytes" ? formatBytes : (value) => byteTime(value, data.seconds !== null);
  const tree = treeOf(app, data, view, rows, weights, moment);
  const groups = groupsOf(data, view, rows, weights, by);
  const choice = (name, labels) => switchFor(app, name, labels, again);
  const tools = element(
    "div",
    { class: "toolbar" },
    choice("by", { module: "category → module → operation", stack: "by stack" }),
    choice("weigh", { bytes: "bytes", lifetime: "bytes × lifetime" }),
    element("div", { class: "tools" },
      element("button", { type: "button", class: "quiet", onclick: () => copyText(tableOf(groups, view, by, weigh).map((row) => row.join("\t")).join("\n")) }, "Copy as text"),
      element("button", { type: "button", class: "quiet", onclick: () => saveCsv(tableOf(groups, view, by, weigh), "memtrace-peak.csv") }, "Save CSV")),
  );
  const total = `${formatBytes(data.level[moment])} in use, ${rows.length.toLocaleString("en-US")} allocations`;
  return [
    section("peak-figure", "What was in use", total, momentBar(app, data, view, again), element("div", { class: "panel" }, tools, icicle(tree, write))),
    section("peak-table", by === "module" ? "By category, module and operation" : "By line of code", null, element("div", { class: "panel" }, element("div", { class: "scroll tall" }, tableNode(groups, view, by, write)))),
  ];
}

function switchFor(app, name, labels, again) {
  const buttons = Object.entries(labels).map(([value, label]) =>
    element("button", { type: "button", [`data-${name}`]: value, "aria-pressed": String(app.state[name] === value), onclick: () => { app.state[name] = value; app.save(); again(); } }, label),
  );
  return element("div", { class: "switch", role: "group", "aria-label": name }, buttons);
}

/** What each row weighs: its bytes, or its bytes times how long it lives, in seconds where there are times. */
export function weightsOf(data, rows, weigh) {
  if (weigh === "bytes") return rows.map((row) => data.size[row]);
  const clock = (moment) => (data.seconds === null ? moment : data.seconds[Math.min(moment, data.numMoments - 1)]);
  return rows.map((row) => data.size[row] * (clock(data.inUseEnd[row]) - clock(data.start[row])));
}

function byteTime(value, inSeconds) {
  return `${formatBytes(Math.round(value))}${inSeconds ? "·s" : "·events"}`;
}

function treeOf(app, data, view, rows, weights, moment) {
  const tree = newNode("everything in use");
  const inks = view.categories.map((one) => [one.label, one.color, one.hatched]);
  rows.forEach((row, at) => {
    const category = inks[data.category[row]];
    if (app.state.by === "module") {
      // Modules inside modules, level by level; no level at all where none was ever recorded.
      const module = !view.modules.length ? [] : data.module[row] ? view.modules[data.module[row] - 1].split(".").map((part) => [part]) : [[OUTSIDE]];
      addPath(tree, [category, ...module, [operationOf(data, view, row)]], weights[at]);
    } else addPath(tree, [...tellingFrames(data, view, row).map((frame) => [frame, null, false]), category], weights[at]);
  });
  const base = app.state.weigh === "bytes" ? baseAt(data, moment) : 0;
  if (base) addPath(tree, [inks[view.categories.findIndex((one) => one.name === "unknown")], ["live before the recording; no block known"]], base);
  return tree;
}

/** The bytes at a moment that no known block makes up. */
export function baseAt(data, moment) {
  return data.base.findLast(([first]) => first <= moment)?.[1] ?? 0;
}

// Outermost first, and only the frames of the best class that is there: those of a library say little beside one's own.
function tellingFrames(data, view, row) {
  const frames = frameRowsOf(data, row).reverse();
  const best = frames.reduce((most, frame) => Math.max(most, view.frame_class[frame]), 0);
  const alike = frames.filter((frame) => view.frame_class[frame] === best).map((frame) => view.frame_names[frame]);
  const telling = best > PLAIN ? alike : alike.slice(-MOST_CPP_FRAMES);
  return telling.length ? telling : ["no stack recorded"];
}

/** Sums of what belongs together, largest first. */
export function groupsOf(data, view, rows, weights, by) {
  const groups = new Map();
  rows.forEach((row, at) => {
    const operation = by === "module" ? operationOf(data, view, row) : null;
    const key = by === "module" ? `${data.category[row]}|${data.module[row]}|${operation}` : data.stack[row];
    let group = groups.get(key);
    if (group === undefined) groups.set(key, (group = { row, operation, weight: 0, bytes: 0, count: 0 }));
    group.weight += weights[at];
    group.bytes += data.size[row];
    group.count += 1;
  });
  return [...groups.values()].sort((one, other) => other.weight - one.weight).map((group) => ({ ...group, data }));
}

function tableNode(groups, view, by, write) {
  const largest = groups[0]?.weight || 1;
  const rows = groups.slice(0, MOST_ROWS).map((group) => {
    const { data, row } = group;
    const category = view.categories[data.category[row]];
    const bar = element("td", { class: "bar-column narrow" }, element("span", { class: category.hatched ? "bar hatched" : "bar", style: { "--color": category.color, width: `${((group.weight / largest) * 100).toFixed(2)}%` } }));
    const what = by === "module"
      ? [element("td", { class: "mono" }, breakable(data.module[row] ? view.modules[data.module[row] - 1] : OUTSIDE)), element("td", { class: "mono" }, breakable(group.operation))]
      : [element("td", { colspan: 2 }, stackCell(data, view, row))];
    return element("tr", { "data-bytes": group.bytes }, element("th", { scope: "row" }, swatch(category.color, category.hatched), category.label), what, element("td", { class: "number strong" }, write(group.weight)), bar, element("td", { class: "number" }, group.count.toLocaleString("en-US")));
  });
  const heads = by === "module" ? ["Category", "Module", "Operation or owner", "In use", "", "Allocations"] : ["Mostly", "Line", null, "In use", "", "Allocations"];
  const head = element("tr", {}, heads.map((label, at) => label !== null && columnHead(label, { class: at === 3 || at === 5 ? "number" : null, colspan: heads[at + 1] === null ? 2 : null })));
  const rest = groups.length - rows.length;
  return element("table", { id: "live-table" }, element("thead", {}, head), element("tbody", {}, rows), rest > 0 && element("tfoot", {}, element("tr", {}, element("td", { colspan: 6 }, `and ${rest.toLocaleString("en-US")} smaller ones; Save CSV has them all`))));
}

function stackCell(data, view, row) {
  const frame = headlineFrame(data, view, row);
  if (frame < 0) return element("span", { class: "muted" }, "no stack was recorded");
  return element("details", { class: "frames" }, element("summary", { class: "mono" }, breakable(view.frame_names[frame])), element("ol", { class: "mono" }, framesOf(data, view, row).map((text) => element("li", {}, breakable(text)))));
}

function tableOf(groups, view, by, weigh) {
  const head = by === "module" ? ["category", "module", "operation", "bytes", "allocations"] : ["category", "stack", "bytes", "allocations"];
  const rows = groups.map(({ data, row, operation, bytes, weight, count }) => {
    const category = view.categories[data.category[row]].label;
    const module = data.module[row] ? view.modules[data.module[row] - 1] : OUTSIDE;
    const what = by === "module" ? [module, operation] : [framesOf(data, view, row).join(" < ")];
    return [category, ...what, bytes, count, ...(weigh === "bytes" ? [] : [weight])];
  });
  return [weigh === "bytes" ? head : [...head, "bytes x lifetime"], ...rows];
}
