// The drawing surface of a map: a canvas for the allocations, one over it for rulers, and ids to pick from.

import { rasterAddressed } from "./addressed.js";
import { columnMoments } from "./camera.js";
import { plainId } from "./ids.js";
import { canvasPainter } from "./paint_canvas.js";
import { hasFastWebgl, webglPainter } from "./paint_gl.js";
import { rasterStacked } from "./stacked.js";
import { element } from "./dom.js";
import { drawRulers } from "./rulers.js";

const LEFT = 90;
const BOTTOM = 26;
const LANES = 46;
/** Pixels of a row of time. */
export const TIME_ROW = 16;

/** The surface; `draw(frame)` draws, `idAt(x, y)` and `momentAtX(x)` answer for the picture that was drawn last. */
export function newSurface(wanted) {
  const picture = element("canvas", { class: "map-picture" });
  const over = element("canvas", { class: "map-over" });
  const node = element("div", { class: "map-surface", tabindex: "0", id: "map-surface", role: "img", "aria-label": "map of all allocations; the details stand beside it" }, picture, over);
  const painter = (wanted === "webgl2" || (wanted === "best" && hasFastWebgl()) ? webglPainter(picture) : null) ?? canvasPainter(picture);
  const drawn = { width: 0, height: 0, ids: new Uint32Array(0), moments: new Int32Array(0), ratio: 1 };
  const plotOf = (lanes) => ({ left: LEFT, top: 4, width: Math.max(node.clientWidth - LEFT, 50), height: Math.max(node.clientHeight - 4 - BOTTOM - lanes, 50) });
  const surface = {
    node,
    painter,
    drawn,
    /** Rows of time that are drawn below the lanes; set before drawing. */
    timeRows: 0,
    timeTop: (view) => (view.spans.length ? LANES : 6),
    laneHeight: (view) => surface.timeTop(view) + surface.timeRows * TIME_ROW,
    plot: (view) => plotOf(surface.laneHeight(view)),
    draw(frame) {
      const ratio = frame.ratio;
      const plot = surface.plot(frame.view);
      const [width, height] = [Math.round(plot.width * ratio), Math.round(plot.height * ratio)];
      resize(drawn, picture, plot, width, height);
      drawn.ratio = ratio;
      drawn.moments = columnMoments(frame.data, frame.axis, frame.camera, width);
      const raster = frame.layout === "address" ? rasterAddressed : rasterStacked;
      raster(frame.data, drawn.moments, frame.camera, width, height, drawn.ids);
      surface.repaint(frame);
    },
    /** Paint the same ids again, as after a change of colours. */
    repaint(frame) {
      painter.draw(drawn.ids, drawn.width, drawn.height);
      surface.drawOver(frame);
    },
    drawOver(frame) {
      const ratio = devicePixelRatio;
      const [width, height] = [node.clientWidth, node.clientHeight];
      if (over.width !== Math.round(width * ratio) || over.height !== Math.round(height * ratio)) {
        over.width = Math.round(width * ratio);
        over.height = Math.round(height * ratio);
      }
      const plot = surface.plot(frame.view);
      drawRulers(over.getContext("2d"), { ...frame, plot, width, height, ratio, laneHeight: surface.laneHeight(frame.view), timeTop: surface.timeTop(frame.view), timeRow: TIME_ROW }, frame.colors);
    },
    /** The id drawn at a place of the node, in CSS pixels; 0 outside. */
    idAt(x, y, view) {
      const plot = surface.plot(view);
      const column = Math.floor((x - plot.left) * drawn.ratio);
      const row = drawn.height - 1 - Math.floor((y - plot.top) * drawn.ratio);
      if (column < 0 || row < 0 || column >= drawn.width || row >= drawn.height) return 0;
      return plainId(drawn.ids[column * drawn.height + row]);
    },
    /** The moment that the column at x shows; -1 for none. */
    momentAtX(x, view) {
      return drawn.moments[Math.floor((x - surface.plot(view).left) * drawn.ratio)] ?? -1;
    },
  };
  return surface;
}

function resize(drawn, picture, plot, width, height) {
  if (drawn.width !== width || drawn.height !== height) {
    Object.assign(drawn, { width, height, ids: new Uint32Array(width * height) });
    picture.width = width;
    picture.height = height;
  }
  Object.assign(picture.style, { left: `${plot.left}px`, top: `${plot.top}px`, width: `${plot.width}px`, height: `${plot.height}px` });
}
