// The page of a report: reads the payload, keeps what is shown, builds the chosen view of the chosen rank, hears keys.

import { element } from "./dom.js";
import { glance } from "./glance.js";
import { WORDS } from "./glossary.js";
import { DEFAULTS, formatHash, parseHash } from "./hash.js";
import { loadMap } from "./mapload.js";
import { mapView } from "./mapview.js";
import { newPeakView } from "./peakview.js";
import { newSegmentsView } from "./segmentsview.js";
import { copyText } from "./save.js";
import { preload, printed, whenIdle } from "./printing.js";
import { rankStrip } from "./rankcells.js";
import { ranksSections } from "./ranksview.js";
import { breakdown, cards, findings, notSeen, outOfMemory, summaryText } from "./summary.js";
import { changesSection, factsSection, stepsSection } from "./tables.js";
import { loadSeries } from "./seriesload.js";
import { themeInForce } from "./theme.js";
import { newTimelineView } from "./timeline.js";
import { timeSection } from "./timeview.js";

const KEYS = [
  ["1 – 9", "views"],
  ["w a s d", "zoom and move on timeline and map"],
  ["x", "time or events on the horizontal axis"],
  ["l", "the map stacked or by address"],
  ["/", "search timeline and map"],
  ["← → ↑ ↓", "move on timeline and map"],
  ["+ − < >", "zoom in time, in bytes"],
  ["shift drag", "select a box: sums by category"],
  ["0", "all of it, or back to the steps"],
  ["Esc", "nothing selected"],
  ["[ and ]", "rank before, rank after"],
  ["c", "copy the summary as text"],
  ["t", "light or dark"],
  ["?", "this help"],
];

const payload = JSON.parse(document.getElementById("data").textContent);
const VIEWS = [
  ["overview", "Overview"],
  ["timeline", "Timeline"],
  ["map", "Map"],
  ["peak", "Peak"],
  ["segments", "Segments"],
  ["steps", "Steps"],
  ["time", "Time", (rank) => rank.time !== null],
  ["ranks", payload.ranked?.noun === "devices" ? "Devices" : "Ranks", () => payload.ranked !== null],
  ["recording", "Recording"],
];

const root = document.documentElement;
const place = { views: document.getElementById("views"), view: document.getElementById("view") };
// The card stands in the file as markup: it is kept, and shown with the overview of the rank that it is about.
const cardNode = document.getElementById("card");
const maps = new Map();
// Without a rank in the link it is the one that verdict and card are about.
DEFAULTS.rank = payload.main;
const app = { payload, root, state: parseHash(location.hash), save: saveState, showMoment, withMap, rank: () => payload.ranks[app.state.rank], go };
let shown = {};
let written = location.hash;

function saveState() {
  written = formatHash(app.state);
  // Inside a notebook the page is text and has no address of its own.
  if (location.protocol === "about:") return;
  // Replaced and not pushed: a zoom is no page to go back to.
  history.replaceState(null, "", written || location.pathname);
}

/** Call back with the arrays of the chosen rank's map, once they are there; show how far they are meanwhile. */
function withMap(node, use) {
  const [index, rank] = [app.state.rank, app.rank()];
  if (!rank.map) {
    node.replaceChildren(element("div", { class: "panel empty" }, rank.map_missing));
    return Promise.resolve();
  }
  const bar = element("span", { style: { width: "0" } });
  const wait = element("div", { class: "panel empty", role: "status" }, "Reading every allocation …", element("span", { class: "meter wait" }, bar));
  if (!maps.has(index)) maps.set(index, { bars: [], loading: loadMap(index, rank.map, (share) => maps.get(index).bars.forEach((one) => { one.style.width = `${Math.round(share * 100)}%`; })) });
  const entry = maps.get(index);
  entry.bars.push(bar);
  if (!entry.data) node.replaceChildren(wait);
  const ready = entry.loading.then((data) => {
    entry.data = data;
    return app.state.rank === index ? use(data, rank.map) : null;
  });
  return ready.catch((error) => {
    node.replaceChildren(element("div", { class: "panel empty" }, `The allocations cannot be shown: ${error.message}`));
  });
}

function showMoment(moment) {
  Object.assign(app.state, { moment, at: moment === null ? "peak" : "moment" });
  saveState();
  shown.moment?.();
}

function toggleTheme() {
  root.dataset.theme = themeInForce() === "dark" ? "light" : "dark";
  shown.recolor?.();
}

function copySummary() {
  copyText(summaryText(payload, app.rank()));
}

function chooseRank(index) {
  Object.assign(app.state, { rank: (index + payload.ranks.length) % payload.ranks.length, row: null, moment: null, camera: null, at: "peak" });
  const held = document.activeElement?.closest("#rank-strip, #rank-minis")?.id;
  go(app.state.view).then(() => held && document.querySelector(`#${held} [aria-pressed=true]`)?.focus({ preventScroll: true }));
}

function go(view) {
  // By address the vertical axis is another one: what is on screen there means nothing elsewhere.
  if (app.state.layout === "address" && view !== app.state.view) app.state.camera = null;
  app.state.view = view;
  saveState();
  return build();
}

function fillActions() {
  document.getElementById("actions").replaceChildren(
    element("button", { type: "button", class: "quiet", id: "copy", onclick: copySummary, title: "the findings as text (c)" }, "Copy"),
    element("button", { type: "button", class: "quiet", id: "theme", onclick: toggleTheme, title: "light or dark (t)" }, "Light / dark"),
    element("button", { type: "button", class: "quiet", id: "help-button", onclick: toggleHelp, title: "keys and words (?)", "aria-label": "keys and words" }, "?"),
  );
}

/** The views that this rank has something for. */
function shownViews() {
  return VIEWS.filter(([, , hasIt]) => !hasIt || (app.rank() && hasIt(app.rank())));
}

function navigation() {
  const tabs = shownViews().map(([name, label], index) =>
    element("a", { href: `#view=${name}`, "data-view": name, title: String(index + 1), "aria-current": app.state.view === name ? "page" : null, onclick: (event) => { event.preventDefault(); go(name); } }, label),
  );
  return element("nav", { class: "views", "aria-label": "views" }, tabs);
}

function help() {
  const entry = ([key, meaning], name) => element("div", {}, element("dt", {}, element(name, {}, key)), element("dd", {}, meaning));
  return element(
    "dialog",
    { id: "help", "aria-label": "keys and words", onclick: (event) => event.target === event.currentTarget && event.currentTarget.close() },
    element("div", { class: "help-head" }, element("h2", {}, "Keys"), element("button", { type: "button", class: "quiet", onclick: toggleHelp }, "Close")),
    element("dl", { class: "help-keys" }, KEYS.map((one) => entry(one, "kbd"))),
    element("h2", {}, "Words"),
    element("dl", { class: "words", id: "words" }, WORDS.map((one) => entry(one, "span"))),
  );
}

function toggleHelp() {
  const dialog = document.getElementById("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

/** The view of the state: `nodes` to show, and what it does when drawn, recoloured, given a key or another moment. */
function viewOf(rank, name = app.state.view) {
  const seen = notSeen([...payload.notes, ...rank.notes]);
  if (rank.left_out && !["overview", "ranks"].includes(name)) return { nodes: [element("div", { class: "panel empty", id: "left-out" }, rank.left_out)] };
  const views = {
    timeline: () => newTimelineView(app, rank),
    map: () => newMapView(),
    peak: () => newPeakView(app, rank),
    segments: () => newSegmentsView(app, rank),
    time: () => ({ nodes: [rank.time ? timeSection(rank) : element("div", { class: "panel empty" }, "No activity of a GPU was recorded for this rank.")] }),
    ranks: () => ({ nodes: payload.ranked ? ranksSections(payload, app.state.rank, chooseRank) : [] }),
    steps: () => ({ nodes: [stepsSection(rank) ?? element("div", { class: "panel empty" }, "This trace marks no steps."), changesSection(rank)] }),
    recording: () => ({ nodes: [seen, factsSection(rank)] }),
  };
  const overview = () => {
    const isMain = cardNode !== null && app.state.rank === payload.main;
    const picture = glance(app, rank);
    const more = [isMain && cardNode, picture?.node, outOfMemory(rank.oom), cards(rank), rank.left_out && element("div", { class: "panel left-out" }, rank.left_out)];
    const nodes = [...more, rank.breakdown && breakdown(rank), findings([...payload.findings, ...rank.findings], { index: app.state.rank, map: rank.map }), seen];
    return { nodes, draw: picture?.draw, recolor: () => picture?.recolor() };
  };
  return (views[name] ?? overview)();
}

function newMapView() {
  const node = element("section", { id: "map", class: "first" });
  const view = { nodes: [node] };
  view.draw = () =>
    withMap(node, async (data, packed) => {
      const { timeline } = app.rank();
      const map = mapView(app, data, packed, timeline && { ...(await loadSeries(timeline)), breaks: timeline.breaks });
      node.replaceChildren(map.node);
      map.show();
      globalThis.memtrace = { ...globalThis.memtrace, map: map.probe };
      Object.assign(view, { recolor: map.recolor, key: map.key, moment: map.recolor });
    });
  return view;
}

function build() {
  root.dataset.ready = "false";
  for (const part of ["map", "timeline", "glance"]) delete root.dataset[part];
  const isOverview = !shownViews().some(([name]) => name === app.state.view && name !== "overview");
  document.getElementById("verdict").classList.toggle("small", !isOverview);
  if (!payload.ranks.length) {
    place.view.replaceChildren(...[cardNode, notSeen(payload.notes), help()].filter(Boolean));
    return Promise.resolve();
  }
  app.state.rank = Math.min(app.state.rank, payload.ranks.length - 1);
  const rank = app.rank();
  app.state.axis ??= rank.timeline?.axis ?? "wall";
  shown = viewOf(rank);
  const footer = element("footer", { class: "muted" }, `memtrace ${payload.memtrace} · sizes in binary units: 1 GiB = 1024 MiB · this page loads nothing from the network`);
  place.views.replaceChildren(...[navigation(), rankStrip(payload, app.state.rank, chooseRank)].filter(Boolean));
  place.view.replaceChildren(...[...shown.nodes, footer, help()].filter(Boolean));
  // On a phone not all tabs have room; the row of them moves, and the page does not.
  const [tabs, chosen] = [place.views.querySelector(".views"), place.views.querySelector("[aria-current=page]")];
  if (chosen) tabs.scrollLeft = Math.max(0, chosen.offsetLeft + chosen.offsetWidth - tabs.offsetLeft - tabs.clientWidth + 24);
  return Promise.resolve(shown.draw?.()).then(() => { root.dataset.ready = "true"; });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = {
    t: toggleTheme,
    c: copySummary,
    "?": toggleHelp,
    "[": () => chooseRank(app.state.rank - 1),
    "]": () => chooseRank(app.state.rank + 1),
  }[event.key];
  const number = payload.ranks.length ? shownViews()[Number(event.key) - 1] : null;
  if (action) action();
  else if (number) go(number[0]);
  else if (shown.key?.(event)) return event.preventDefault();
  else if (event.key === "/") go("map").then(() => document.getElementById("map-search")?.focus());
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", onKey);
addEventListener("hashchange", () => {
  if (location.hash === written) return;
  app.state = parseHash(location.hash);
  written = location.hash;
  build();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown.recolor?.());
// On paper every view stands below the other. What they draw from is there by then, so that they are drawn before the event ends.
addEventListener("beforeprint", () => payload.ranks.length && printed(root, place.view, shownViews(), (name) => viewOf(app.rank(), name)));
addEventListener("afterprint", () => {
  delete root.dataset.printing;
  build();
});
fillActions();
// Tests wait for this; figures are drawn, and no promise is left open.
build().then(() => {
  root.dataset.ready = "true";
  if (payload.ranks.length) whenIdle(() => preload(app));
});
