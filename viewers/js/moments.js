// Which moment a view shows: the peak, a chosen one, or the end; and the bar that says so.

import { momentText } from "./details.js";
import { element } from "./dom.js";

/** The moment that the state names: that of the peak where none was chosen. */
export function shownMoment(app, data, view) {
  if (app.state.at === "end") return data.numMoments - 1;
  if (app.state.at === "moment" && app.state.moment !== null) return Math.min(app.state.moment, data.numMoments - 1);
  return view.peaks.peak ?? data.numMoments - 1;
}

/** Buttons for peaks, the chosen moment and the end. `changed` is called after a choice. */
export function momentBar(app, data, view, changed) {
  const choose = (at, moment = app.state.moment) => () => {
    Object.assign(app.state, { at, moment });
    app.save();
    changed();
  };
  const shown = shownMoment(app, data, view);
  if (data.numMoments < 3) return element("div", { class: "moment-bar" }, element("span", { class: "muted", id: "moment-text" }, "the one moment of the snapshot"));
  const named = [
    ["at the peak", "peak", view.peaks.peak],
    ["first-step peak", "moment", view.peaks.first_step_peak],
    ["steady-state peak", "moment", view.peaks.steady_state_peak],
  ].filter(([, at, moment]) => moment !== undefined && (at === "peak" || moment !== view.peaks.peak));
  const buttons = named.map(([label, at, moment]) => [label, at, moment, shown === moment]);
  const isNamed = buttons.some(([, , , is]) => is);
  if (app.state.at === "moment" && app.state.moment !== null && !isNamed) buttons.push(["chosen moment", "moment", app.state.moment, true]);
  buttons.push(["survivors at the end", "end", app.state.moment, app.state.at === "end"]);
  return element(
    "div",
    { class: "moment-bar" },
    element("div", { class: "switch", role: "group", "aria-label": "moment" }, buttons.map(([label, at, moment, is]) => element("button", { type: "button", "data-at": label, "aria-pressed": String(app.state.at === "end" ? at === "end" : is), onclick: choose(at, moment) }, label))),
    element("span", { class: "muted", id: "moment-text" }, momentText(data, view, shown)),
  );
}
