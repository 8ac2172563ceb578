// The page of a report: reads the payload, builds the sections of the chosen rank, and listens to keys.

import { element } from "./dom.js";
import { breakdown, cards, findings, notSeen, outOfMemory, rankStrip } from "./summary.js";
import { factsSection, modulesSection, stacksSection, stepsSection } from "./tables.js";
import { timelineSection } from "./timeline.js";

const KEYS = [
  ["a", "time or events on the horizontal axis"],
  ["0", "reset the zoom"],
  ["[ and ]", "rank before, rank after"],
  ["t", "light or dark"],
  ["?", "this help"],
];

const payload = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const page = document.getElementById("page");
const shown = { rank: 0, timeline: null, modules: null };

function themeInForce() {
  return root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function toggleTheme() {
  root.dataset.theme = themeInForce() === "dark" ? "light" : "dark";
  drawFigures();
}

function drawFigures() {
  return Promise.all([shown.timeline?.draw(), shown.modules?.draw()]);
}

function chooseRank(index) {
  shown.rank = (index + payload.ranks.length) % payload.ranks.length;
  build();
}

function header() {
  const actions = element(
    "div",
    { class: "actions" },
    element("button", { type: "button", class: "quiet", id: "theme", onclick: toggleTheme, title: "light or dark (t)" }, "Light / dark"),
    element("button", { type: "button", class: "quiet", id: "help-button", onclick: toggleHelp, title: "keys (?)" }, "?"),
  );
  return element(
    "header",
    {},
    element("div", { class: "masthead" }, element("span", { class: "wordmark" }, "memtrace"), element("span", { class: "muted title" }, payload.title), actions),
    element("h1", { class: "verdict", id: "verdict" }, payload.verdict),
  );
}

function help() {
  const rows = KEYS.map(([key, meaning]) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, meaning)));
  return element("dialog", { id: "help", onclick: (event) => event.currentTarget.close() }, element("h2", {}, "Keys"), element("dl", {}, rows));
}

function toggleHelp() {
  const dialog = document.getElementById("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function build() {
  const rank = payload.ranks[shown.rank];
  if (!rank) {
    page.replaceChildren(header(), notSeen(payload.notes) ?? "", help());
    return Promise.resolve();
  }
  shown.timeline = timelineSection(payload, rank);
  shown.modules = modulesSection(payload, rank);
  const parts = [
    header(),
    rankStrip(payload, shown.rank, chooseRank),
    outOfMemory(rank.oom),
    cards(rank),
    notSeen([...payload.notes, ...rank.notes]),
    breakdown(rank),
    findings([...payload.findings, ...rank.findings]),
    shown.timeline.node,
    stacksSection(rank),
    shown.modules.node,
    stepsSection(rank),
    factsSection(rank),
    element("footer", { class: "muted" }, `memtrace ${payload.memtrace} · sizes in binary units: 1 GiB = 1024 MiB · this page loads nothing from the network`),
    help(),
  ];
  page.replaceChildren(...parts.filter(Boolean));
  return drawFigures();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const action = {
    a: () => shown.timeline?.toggleAxis(),
    0: () => shown.timeline?.resetZoom(),
    t: toggleTheme,
    "?": toggleHelp,
    "[": () => chooseRank(shown.rank - 1),
    "]": () => chooseRank(shown.rank + 1),
  }[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
}

document.addEventListener("keydown", onKey);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigures);
// Paper is light: the style sheet gives print the light colours, and the figures follow.
matchMedia("print").addEventListener("change", drawFigures);
// Tests wait for this; figures are drawn, and no promise is left open.
build().then(() => { root.dataset.ready = "true"; });
