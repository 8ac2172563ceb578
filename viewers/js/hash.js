// What is shown, in the address of the page: so that a view can be linked to, and comes back after a reload.

/** Everything that a link holds, with what holds without one. */
export const DEFAULTS = {
  view: "overview",
  rank: 0,
  axis: null,
  layout: "stacked",
  colour: "category",
  camera: null,
  row: null,
  q: null,
  moment: null,
  at: "peak",
  by: "module",
  weigh: "bytes",
  painter: "best",
};

const CHOICES = {
  axis: ["wall", "event"],
  layout: ["stacked", "address"],
  colour: ["category", "module", "step", "size"],
  at: ["peak", "moment", "end"],
  by: ["module", "stack"],
  weigh: ["bytes", "lifetime"],
  painter: ["best", "webgl2", "canvas"],
};
const NUMBERS = ["rank", "row", "moment"];

/** The state that a hash names; what it does not name, or names wrongly, is as by default. */
export function parseHash(text) {
  const state = { ...DEFAULTS };
  for (const [key, value] of new URLSearchParams(text.replace(/^#/, ""))) {
    if (NUMBERS.includes(key) && /^\d{1,15}$/.test(value)) state[key] = Number(value);
    else if (CHOICES[key]?.includes(value)) state[key] = value;
    else if (key === "view" || key === "q") state[key] = value;
    else if (key === "camera") state.camera = parsedCamera(value);
  }
  return state;
}

function parsedCamera(text) {
  const numbers = text.split(",").map(Number);
  if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return null;
  const [x0, x1, y0, y1] = numbers;
  return x1 > x0 && y1 > y0 ? { x0, x1, y0, y1 } : null;
}

const shortened12 = (numbers) => numbers.map((number) => Number(number.toPrecision(12))).join(",");

/** The hash of a state: what differs from the default. */
export function formatHash(state) {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value === DEFAULTS[key] || value === null) continue;
    if (key === "camera") parts.set(key, shortened12([value.x0, value.x1, value.y0, value.y1]));
    else parts.set(key, String(value));
  }
  return parts.size ? `#${parts}` : "";
}
