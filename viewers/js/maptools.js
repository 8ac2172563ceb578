// What stands around a chart: the switches, search and buttons above it, the legend below.

import { element, swatch } from "./dom.js";
import { COLOURS, legendOf, rampColor } from "./inks.js";

const LAYOUTS = { stacked: "stacked", address: "by address" };
const AXIS_NAMES = { wall: "wall clock", event: "events" };

/** The tools of a map; `act` gives what they do: `relaid` and `recolored`. */
export function mapTools(self, act) {
  const { state } = self.app;
  const switches = [
    switchOf("layout", LAYOUTS, state, act.relaid),
    switchOf("axis", AXIS_NAMES, state, act.relaid),
    switchOf("colour", COLOURS, state, act.recolored),
  ];
  const node = element(
    "div",
    { class: "toolbar" },
    switches.map((one) => one.node),
    self.search,
    self.found,
    element("div", { class: "tools" }, chartTools(self.chart)),
  );
  if (self.data.seconds === null) switches[1].node.hidden = true;
  const refresh = () => switches.forEach((one) => one.refresh());
  const next = (name) => {
    const values = Object.keys(name === "axis" ? AXIS_NAMES : LAYOUTS);
    state[name] = values[(values.indexOf(state[name]) + 1) % values.length];
    refresh();
    act.relaid();
  };
  return { node, refresh, next };
}

/** The switch of the horizontal axis alone. */
export function axisSwitch(state, data, relaid) {
  const one = switchOf("axis", AXIS_NAMES, state, relaid);
  one.node.hidden = data.seconds === null || data.order.length === 0;
  const next = () => {
    state.axis = state.axis === "wall" ? "event" : "wall";
    one.refresh();
    relaid();
  };
  return { node: one.node, next: () => !one.node.hidden && next() };
}

/** Buttons that every chart has: select instead of move, all of it, a picture. */
export function chartTools(chart) {
  const select = element("button", { type: "button", class: "quiet", "aria-pressed": "false", title: "drag to select a box, as with the shift key", onclick: () => {
    chart.selecting = !chart.selecting;
    select.setAttribute("aria-pressed", String(chart.selecting));
  } }, "Select");
  const fit = element("button", { type: "button", class: "quiet", onclick: () => chart.fit(), title: "all of it, or back to the steps (0)" }, "Fit");
  return [select, fit, element("button", { type: "button", class: "quiet", onclick: () => chart.save() }, "Save PNG")];
}

function switchOf(name, labels, state, changed) {
  const buttons = Object.entries(labels).map(([value, label]) =>
    element("button", { type: "button", [`data-${name}`]: value, onclick: () => { state[name] = value; refresh(); changed(); } }, label),
  );
  const refresh = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.getAttribute(`data-${name}`) === state[name])));
  refresh();
  return { node: element("div", { class: "switch", role: "group", "aria-label": name }, buttons), refresh };
}

/** Say what the colours mean. */
export function drawMapLegend(self) {
  const { data, view, app } = self;
  const { patches, ramp, none } = legendOf(data, view, app.state.colour);
  const items = patches ? patches.map((one) => element("span", { class: "key" }, swatch(one.color, one.hatched), one.label)) : [];
  if (ramp) {
    const stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => `rgb(${rampColor(share).join(" ")})`).join(",");
    items.push(element("span", { class: "key" }, ramp[0], element("span", { class: "ramp", style: { background: `linear-gradient(90deg, ${stops})` } }), ramp[1]));
  }
  if (none) items.push(element("span", { class: "key" }, swatch("#8B929C", true), none));
  self.legend.replaceChildren(...items);
}
