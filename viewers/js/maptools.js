// What stands around the map: the switches, search and buttons above it, the legend below.

import { element, swatch } from "./dom.js";
import { COLOURS, legendOf, rampColor } from "./inks.js";
import { saveBlob } from "./save.js";

const LAYOUTS = { stacked: "stacked", address: "by address" };
const AXIS_NAMES = { wall: "wall clock", event: "events" };

/** The tools of a map; `act` gives what they do: `relaid`, `recolored`, `fit` and `redraw`. */
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
    element("div", { class: "tools" }, element("button", { type: "button", class: "quiet", onclick: act.fit, title: "all of it (0)" }, "Fit"), element("button", { type: "button", class: "quiet", onclick: () => savePng(self, act.redraw) }, "Save PNG")),
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

function savePng(self, redraw) {
  const { surface } = self;
  // The picture of WebGL lasts until the page is composed: it is drawn again, and copied at once.
  redraw();
  const [picture, over] = surface.node.querySelectorAll("canvas");
  const ratio = devicePixelRatio;
  const canvas = element("canvas", { width: over.width, height: over.height });
  const context = canvas.getContext("2d");
  context.fillStyle = self.colors.panelText;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const plot = surface.plot(self.view);
  context.drawImage(picture, plot.left * ratio, plot.top * ratio, plot.width * ratio, plot.height * ratio);
  context.drawImage(over, 0, 0);
  canvas.toBlob((blob) => saveBlob(blob, "memtrace-map.png"));
}
