// Pointer, wheel and keys on the map → a new camera, a pick, a measured stretch. Knows nothing of what is drawn.

import { panned, zoomed } from "./camera.js";

const CLICK_PIXELS = 4;

/** Listen on the surface of a map. `map` gives `camera()`, `plot()` and takes `moveTo`, `hover`, `pick`, `measure`, `fit`. */
export function listen(surface, map) {
  let drag = null;
  const at = (event) => {
    const box = surface.getBoundingClientRect();
    const plot = map.plot();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return { x, y, shareX: (x - plot.left) / plot.width, shareY: 1 - (y - plot.top) / plot.height };
  };
  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { shareX, shareY } = at(event);
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return map.moveTo(panned(map.camera(), event.deltaX / map.plot().width, 0));
    const factor = Math.exp(Math.min(Math.max(event.deltaY, -240), 240) * 0.0022);
    const vertical = event.shiftKey || event.altKey || shareX < 0;
    map.moveTo(zoomed(map.camera(), vertical ? 1 : factor, vertical ? factor : 1, shareX, shareY));
  }, { passive: false });
  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    surface.setPointerCapture(event.pointerId);
    drag = { from: at(event), camera: map.camera(), measures: event.shiftKey, moved: false };
    map.measure(null);
  });
  surface.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (drag === null) return map.hover(here);
    if (Math.hypot(here.x - drag.from.x, here.y - drag.from.y) > CLICK_PIXELS) drag.moved = true;
    if (!drag.moved) return;
    map.hover(null);
    if (drag.measures) map.measure(drag.from, here);
    else map.moveTo(panned(drag.camera, drag.from.shareX - here.shareX, drag.from.shareY - here.shareY));
  });
  surface.addEventListener("pointerup", (event) => {
    if (drag !== null && !drag.moved) map.pick(at(event));
    drag = null;
  });
  surface.addEventListener("pointerleave", () => map.hover(null));
  surface.addEventListener("dblclick", () => map.fit());
}

/** What a key does to a camera; null for any other key. */
export function cameraOfKey(key, camera) {
  const moves = {
    ArrowLeft: () => panned(camera, -0.15, 0),
    ArrowRight: () => panned(camera, 0.15, 0),
    ArrowUp: () => panned(camera, 0, 0.15),
    ArrowDown: () => panned(camera, 0, -0.15),
    "+": () => zoomed(camera, 0.7, 1, 0.5, 0),
    "=": () => zoomed(camera, 0.7, 1, 0.5, 0),
    "-": () => zoomed(camera, 1 / 0.7, 1, 0.5, 0),
    ">": () => zoomed(camera, 1, 0.7, 0, 0.5),
    "<": () => zoomed(camera, 1, 1 / 0.7, 0, 0.5),
  };
  return moves[key]?.() ?? null;
}
