// The lower half of the page: where the peak was allocated, step by step, and the facts of the recording.

import { breakable, columnHead, element, meter, section, stackedBar, swatch } from "./dom.js";
import { formatBytes } from "./format.js";
import { addPath, icicle, newNode } from "./icicle.js";
import { saveCsv } from "./save.js";

const SHOWN_AT_FIRST = 10;

/** Bytes at the peak by module: figure and table. */
export function modulesSection(rank) {
  const view = rank.modules;
  if (!view.rows.length) return null;
  const rows = view.rows.map((row) =>
    element(
      "tr",
      { "data-module": row.module },
      element("th", { scope: "row", class: "mono" }, breakable(row.module)),
      element("td", { class: "number strong" }, row.value),
      element("td", { class: "number muted" }, row.percent),
      element("td", { class: "bar-column" }, partsBar(row)),
      element("td", { class: "number" }, row.allocations),
    ),
  );
  const table = element("table", { id: "module-table" }, headings(["Module", "At the peak", null, "", "Allocations"]), element("tbody", {}, rows));
  const figure = element("div", { class: "panel" }, icicle(moduleTree(view.rows), formatBytes));
  const lead = "In which module the bytes were allocated, modules inside modules; the last row of each is what they are for. Click to go in.";
  return section("modules", "By module, at the peak", lead, figure, element("div", { class: "panel" }, element("div", { class: "scroll" }, table), more(rows, view.left_out, "modules")));
}

// What the bytes of a row are; as long as its share of the largest row.
function partsBar(row) {
  const parts = row.parts.map((part) => ({ ...part, title: `${part.label} ${part.value}` }));
  return element("div", { style: { width: `${(row.share * 100).toFixed(2)}%` }, class: "bar-scale" }, stackedBar(parts, "categories"));
}

// Modules inside modules, and last what their bytes are for.
function moduleTree(rows) {
  const tree = newNode("all modules");
  for (const row of rows) {
    const path = row.is_module ? row.module.split(".") : [row.module];
    for (const part of row.parts) addPath(tree, [...path.map((one) => [one, null, false]), [part.label, part.color, part.hatched]], part.bytes);
  }
  return tree;
}

/** Bytes at the peak by stack, with the line of the program first and all frames on demand. */
export function stacksSection(rank) {
  const view = rank.stacks;
  if (!view.rows.length) return null;
  const rows = view.rows.map((row, index) =>
    element(
      "tr",
      { "data-stack": index },
      element("td", {}, frames(row)),
      element("td", { class: "number strong" }, row.value),
      element("td", { class: "number muted" }, row.percent),
      element("td", { class: "bar-column narrow" }, partsBar(row)),
      element("td", {}, swatch(row.color, row.hatched), row.category),
      element("td", { class: "number" }, row.allocations),
    ),
  );
  const table = element("table", { id: "stack-table" }, headings(["Line", "At the peak", null, "", "What", "Allocations"], 1, 4), element("tbody", {}, rows));
  const lead = "Which line asked for the bytes. Open a row for the whole stack, innermost first.";
  return section("stacks", "By line of code, at the peak", lead, element("div", { class: "panel" }, element("div", { class: "scroll" }, table), more(rows, view.left_out, "stacks")));
}

function frames(row) {
  if (row.headline === null) return element("span", { class: "muted" }, "no stack was recorded");
  const summary = element("summary", {}, element("span", { class: "mono" }, frame(row.headline)), row.innermost !== row.headline && element("span", { class: "inner mono muted" }, "in ", row.innermost));
  return element("details", { class: "frames" }, summary, element("ol", { class: "mono" }, row.frames.map((text) => element("li", {}, breakable(text)))));
}

function frame(text) {
  const [, place, name] = /^(.*?)(?: ([^ ]+))?$/su.exec(text);
  return [element("span", { class: "place" }, breakable(place)), name && element("b", {}, ` ${name}`)];
}

function headings(labels, firstNumber = 1, ...texts) {
  const cells = labels.map((label, index) =>
    label === null ? null : columnHead(label, { class: index >= firstNumber && !texts.includes(index) ? "number" : null, colspan: labels[index + 1] === null ? 2 : null }),
  );
  return element("thead", {}, element("tr", {}, cells));
}

function more(rows, leftOut, what) {
  rows.slice(SHOWN_AT_FIRST).forEach((row) => row.classList.add("later"));
  const rest = leftOut ? `${leftOut.toLocaleString("en-US")} smaller ${what} are not in this page.` : null;
  if (rows.length <= SHOWN_AT_FIRST) return rest && element("p", { class: "muted" }, rest);
  const show = (event) => {
    rows.forEach((row) => row.classList.remove("later"));
    event.currentTarget.remove();
  };
  return element("p", { class: "more" }, element("button", { type: "button", class: "quiet", onclick: show }, `Show all ${rows.length} ${what}`), rest && element("span", { class: "muted" }, ` ${rest}`));
}

/** One row a step. */
export function stepsSection(rank) {
  const view = rank.steps;
  if (!view.rows.length) return null;
  const columns = [
    ["Step", (row) => element("th", { scope: "row" }, row.label, row.skipped && element("span", { class: "tag" }, "skipped"), !row.ended && element("span", { class: "tag" }, "unfinished"))],
    ["Peak", (row) => element("td", { class: "number strong" }, row.peak)],
    ["", (row) => element("td", { class: "bar-column narrow" }, meter(row.share, "ink"))],
    ...view.phases.map((label, index) => [label, (row) => element("td", { class: "number" }, row.phase_peaks[index])]),
    ["After it", (row) => element("td", { class: "number" }, row.end)],
    view.has_reserved && ["Reserved", (row) => element("td", { class: "number" }, row.reserved)],
    view.has_mallocs && ["Device mallocs", (row) => element("td", { class: "number" }, row.mallocs)],
    view.has_rss && ["Host RSS", (row) => element("td", { class: "number" }, row.rss)],
    ["Time", (row) => element("td", { class: "number" }, row.duration)],
  ].filter(Boolean);
  const rows = view.rows.map((row) =>
    row.recorded
      ? element("tr", { "data-step": row.label }, columns.map(([, cell]) => cell(row)))
      : element("tr", { class: "unrecorded" }, element("th", { scope: "row" }, row.label), element("td", { colspan: columns.length - 1 }, row.text)),
  );
  const head = element("thead", {}, element("tr", {}, columns.map(([label], index) => columnHead(label, { class: index ? "number" : null }))));
  const phases = view.phases.length ? ` The columns ${view.phases.join(", ")} are the peaks within those phases.` : "";
  const lead = `Largest ${view.kind} bytes in each step.${phases}`;
  const table = element("table", { id: "step-table" }, head, element("tbody", {}, rows));
  const save = element("button", { type: "button", class: "quiet", onclick: () => saveCsv(cellTexts(table), "memtrace-steps.csv") }, "Save CSV");
  return section("steps", "Step by step", lead, element("div", { class: "panel" }, element("div", { class: "scroll tall" }, table), element("p", { class: "more" }, save)), rank.speed.length > 0 && element("ul", { class: "remarks muted", id: "speed" }, rank.speed.map((text) => element("li", {}, text))));
}

// What the table shows, cell by cell; the bars have no text.
function cellTexts(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
}

/** What the steady state holds more or less than the first step, by category; null unless both peaks are known. */
export function changesSection(rank) {
  const view = rank.changes;
  if (view === null) return null;
  const rows = view.rows.map((row) =>
    element("tr", { "data-change": row.category, class: row.same ? "faint" : "" }, element("th", { scope: "row" }, swatch(row.color, row.hatched), row.label), row.values.map((value) => element("td", { class: "number" }, value)), element("td", { class: "number strong" }, row.change)),
  );
  const total = element("tr", {}, element("th", { scope: "row" }, "requested"), view.total.map((value) => element("td", { class: "number" }, value)));
  return section("changes", "First step against steady state", "What is live at the two peaks, by category.", element("div", { class: "panel" }, element("div", { class: "scroll" }, element("table", { id: "change-table" }, headings(["Category", "First-step peak", "Steady-state peak", "Change"]), element("tbody", {}, rows), element("tfoot", {}, total)))));
}

/** What is known of the run: versions, command, settings. */
export function factsSection(rank) {
  const rows = rank.facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, breakable(value))));
  return section("facts", "The recording", null, element("dl", { class: "facts panel" }, rows));
}
