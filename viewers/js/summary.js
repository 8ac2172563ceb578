// The top of the page: verdict, what was not seen, advice, cards, and what the peak is made of.

import { element, meter, section, stackedBar, swatch } from "./dom.js";

/** The line of cards. */
export function cards(rank) {
  return element("div", { class: "cards" }, rank.cards.map(card));
}

function card(view) {
  return element(
    "div",
    { class: `card ${view.key} ${view.tone ?? ""}`, "data-card": view.key },
    element("div", { class: "card-label" }, view.label),
    element("div", { class: view.value === "not recorded" || view.value === "none" ? "card-value none" : "card-value" }, view.value),
    view.meter !== undefined && meter(view.meter),
    element("div", { class: "card-detail" }, view.detail),
  );
}

/** The out-of-memory that ended the run. */
export function outOfMemory(oom) {
  if (oom === null) return null;
  const rows = oom.rows.map((row) => element("div", {}, element("dt", {}, row.label), element("dd", { class: "number" }, row.value)));
  return element("div", { class: "oom panel", role: "note" }, element("strong", {}, oom.title), oom.cause && element("span", {}, oom.cause), element("dl", {}, rows), oom.explanation.length > 0 && element("ol", {}, oom.explanation.map((sentence) => element("li", {}, sentence))));
}

/** What the trace cannot show. It stands near the top, since it says how far the rest can be trusted. */
export function notSeen(notes) {
  if (!notes.length) return null;
  const items = notes.map((note) =>
    element("li", {}, withCode(note.message), note.count > 1 && element("span", { class: "muted" }, ` × ${note.count.toLocaleString("en-US")}`), " ", element("code", { class: "slug" }, note.slug)),
  );
  return element("details", { class: "not-seen", id: "not-seen", open: notes.length <= 4 }, element("summary", {}, "What was not seen", element("span", { class: "muted" }, ` · ${notes.length}`)), element("ul", {}, items));
}

// Messages name commands between backticks, for the terminal; here they are set as code.
function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** Advice with its evidence, in the order given; where it names a place, with a link to its allocations on the map. */
export function findings(views, rank) {
  if (!views.length) return null;
  return section("findings", "What to change", null, element("ol", { class: "findings" }, views.map((view) => finding(view, rank))));
}

function finding(view, rank) {
  const evidence = view.evidence.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", { class: "number" }, value)));
  return element(
    "li",
    { class: `panel finding ${["error", "warning", "info"].includes(view.severity) ? view.severity : "info"}` },
    element("div", { class: "finding-head" }, element("strong", {}, view.title), element("span", { class: "effect number" }, view.effects.join(" · "))),
    element("p", {}, view.change, view.cost && element("span", { class: "muted" }, ` Cost: ${view.cost.replace(/\.$/, "")}.`)),
    view.where && element("p", { class: "muted mono" }, view.where, view.search && rank.map && [" ", element("a", { class: "to-map", href: `#${new URLSearchParams({ view: "map", rank: rank.index, q: view.search })}` }, "on the map")]),
    evidence.length > 0 && element("dl", {}, evidence),
  );
}

/** What the peak is made of: one bar, and the same as a table beside the other peaks. */
export function breakdown(rank) {
  const view = rank.breakdown;
  const parts = view.rows.map((row) => ({ ...row, title: `${row.label} ${row.values[0]} (${row.percent})` }));
  const head = element("tr", {}, element("th", { scope: "col" }, "Category"), element("th", { scope: "col", class: "number", colspan: 2 }, view.columns[0]), element("td", { class: "bar-column" }), view.columns.slice(1).map((label) => element("th", { scope: "col", class: "number" }, label)));
  const table = element("table", { class: "breakdown", id: "breakdown-table" }, element("thead", {}, head), element("tbody", {}, view.rows.map(breakdownRow)), element("tfoot", {}, view.totals.map(totalRow)));
  return section("breakdown", "What the peak is made of", null, element("div", { class: "panel" }, stackedBar(parts, "bytes by category at the peak"), element("div", { class: "scroll" }, table), decisions(view.decisions)));
}

function breakdownRow(row) {
  const [peak, ...others] = row.values;
  return element(
    "tr",
    { "data-category": row.category, class: row.share ? "" : "faint" },
    element("th", { scope: "row" }, swatch(row.color, row.hatched), row.hatched ? element("em", {}, row.label) : row.label),
    element("td", { class: "number strong" }, peak),
    element("td", { class: "number muted" }, row.percent),
    element("td", { class: "bar-column" }, element("span", { class: row.hatched ? "bar hatched" : "bar", style: { "--color": row.color, width: `${(row.share * 100).toFixed(2)}%` } })),
    others.map((value) => element("td", { class: "number" }, value)),
  );
}

function totalRow(row) {
  const [peak, ...others] = row.values;
  return element("tr", { "data-total": row.label }, element("th", { scope: "row" }, row.label), element("td", { class: "number" }, peak), element("td"), element("td"), others.map((value) => element("td", { class: "number" }, value)));
}

function decisions(views) {
  const parts = views.filter((view) => view.share > 0);
  if (!parts.length) return null;
  const items = parts.map((view) => element("span", { class: `decision ${view.key}`, "data-decision": view.key }, element("i"), element("b", { class: "number" }, view.percent), ` ${view.label} `, element("span", { class: "muted number" }, view.value)));
  return element("div", { class: "decisions" }, element("span", { class: "muted" }, "How it is known:"), items);
}

/** The overview as plain text, for a message or an issue. */
export function summaryText(payload, rank) {
  if (!rank) return payload.verdict;
  const cards = rank.cards.map((card) => `${card.label}: ${card.value} (${card.detail})`);
  const categories = (rank.breakdown?.rows ?? []).filter((row) => row.share > 0).map((row) => `  ${row.label}: ${row.values[0]} (${row.percent})`);
  const advice = [...payload.findings, ...rank.findings].map((view) => `- ${[view.title, ...view.effects].join("; ")}${view.where ? ` [${view.where}]` : ""}`);
  const parts = [payload.verdict, `${payload.title}, ${rank.label}`, "", ...cards, ...(categories.length ? ["", "At the peak:", ...categories] : [])];
  return [...parts, ...(advice.length ? ["", "What to change:", ...advice] : [])].join("\n");
}
