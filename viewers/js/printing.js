// Every view on paper, one below the other. Views draw from promises; with what they wait for loaded beforehand, they are
// drawn before the browser lays out the pages.

import { element } from "./dom.js";
import { loadSeries } from "./seriesload.js";

/** Call back once the page has nothing else to do. */
export function whenIdle(act) {
  if ("requestIdleCallback" in globalThis) requestIdleCallback(act, { timeout: 4000 });
  else setTimeout(act, 1500);
}

/** Load what views draw from, so that they open at once and can be printed. */
export function preload(app) {
  const rank = app.rank();
  if (rank.timeline) loadSeries(rank.timeline);
  if (rank.map) app.withMap(element("div"), () => {});
}

/** Fill a node with all views, each under its name. Affects: the page is as wide as paper until it is built anew. */
export function printed(root, node, views, viewOf) {
  root.dataset.printing = "true";
  const parts = views.map(([name, label]) => [label, viewOf(name)]);
  node.replaceChildren(...parts.flatMap(([label, view]) => [element("h2", { class: "print-head" }, label), ...view.nodes.filter(Boolean)]));
  for (const [, view] of parts) view.draw?.();
  for (const row of node.querySelectorAll("tr.later")) row.classList.remove("later");
}
