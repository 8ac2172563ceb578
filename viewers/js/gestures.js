// Pointer, wheel and keys on a chart → a new camera, a pick, a selected box. Knows nothing of what is drawn.

import { panned, zoomed } from "./camera.js";

const CLICK_PIXELS = 4;

function pointIn(surface, chart, event) {
  const box = surface.getBoundingClientRect();
  const plot = chart.plot();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  return { x, y, shareX: (x - plot.left) / plot.width, shareY: 1 - (y - plot.top) / plot.height };
}

/** Listen on a chart that does not move: the pointer reads it, a click opens what it stands for. */
export function listenStill(surface, chart) {
  surface.addEventListener("pointermove", (event) => chart.hover(pointIn(surface, chart, event)));
  surface.addEventListener("pointerleave", () => chart.hover(null));
  surface.addEventListener("click", (event) => chart.pick(pointIn(surface, chart, event)));
}

/**
 * Listen on the surface of a chart. `chart` gives `camera()`, `plot()`, `selects()` (whether a drag selects without the shift
 * key) and takes `moveTo`, `hover`, `pick`, `select` and `fit`.
 */
export function listen(surface, chart) {
  let drag = null;
  const fingers = new Map();
  const at = (event) => pointIn(surface, chart, event);
  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { shareX, shareY } = at(event);
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return chart.moveTo(panned(chart.camera(), event.deltaX / chart.plot().width, 0));
    const factor = Math.exp(Math.min(Math.max(event.deltaY, -240), 240) * 0.0022);
    const vertical = event.shiftKey || event.altKey || shareX < 0;
    chart.moveTo(zoomed(chart.camera(), vertical ? 1 : factor, vertical ? factor : 1, shareX, shareY));
  }, { passive: false });
  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    fingers.set(event.pointerId, at(event));
    surface.setPointerCapture(event.pointerId);
    if (fingers.size === 2) {
      drag = { pinch: pinchOf(fingers), camera: chart.camera(), moved: true };
      return;
    }
    drag = { from: at(event), camera: chart.camera(), selects: event.shiftKey || chart.selects(), moved: false };
    chart.select(null);
  });
  surface.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, here);
    if (drag === null) return chart.hover(here);
    if (drag.pinch) return fingers.size === 2 && chart.moveTo(pinched(drag, pinchOf(fingers)));
    if (Math.hypot(here.x - drag.from.x, here.y - drag.from.y) > CLICK_PIXELS) drag.moved = true;
    if (!drag.moved) return;
    chart.hover(null);
    if (drag.selects) chart.select(drag.from, here, false);
    else chart.moveTo(panned(drag.camera, drag.from.shareX - here.shareX, drag.from.shareY - here.shareY));
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    if (drag === null) return;
    if (event.type === "pointerup" && !drag.moved) chart.pick(at(event));
    else if (drag.selects && drag.moved) chart.select(drag.from, at(event), true);
    drag = null;
  };
  surface.addEventListener("pointerup", release);
  surface.addEventListener("pointercancel", release);
  surface.addEventListener("pointerleave", () => chart.hover(null));
  surface.addEventListener("dblclick", () => chart.fit());
}

function pinchOf(fingers) {
  const [one, other] = [...fingers.values()];
  return { middle: (one.shareX + other.shareX) / 2, apart: Math.max(Math.abs(one.shareX - other.shareX), 0.02) };
}

function pinched({ camera, pinch }, now) {
  return panned(zoomed(camera, pinch.apart / now.apart, 1, pinch.middle, 0), (pinch.middle - now.middle) * (pinch.apart / now.apart), 0);
}

/** What a key does to a camera; null for any other key. */
export function cameraOfKey(key, camera) {
  const nearer = () => zoomed(camera, 0.7, 1, 0.5, 0);
  const farther = () => zoomed(camera, 1 / 0.7, 1, 0.5, 0);
  const left = () => panned(camera, -0.15, 0);
  const right = () => panned(camera, 0.15, 0);
  const moves = {
    ArrowLeft: left,
    a: left,
    ArrowRight: right,
    d: right,
    ArrowUp: () => panned(camera, 0, 0.15),
    ArrowDown: () => panned(camera, 0, -0.15),
    "+": nearer,
    "=": nearer,
    w: nearer,
    "-": farther,
    s: farther,
    ">": () => zoomed(camera, 1, 0.7, 0, 0.5),
    "<": () => zoomed(camera, 1, 1 / 0.7, 0, 0.5),
  };
  return moves[key]?.() ?? null;
}
