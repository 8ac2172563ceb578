// The drawing surface of a chart: a canvas for the memory, one over it for rulers and marks, and ids to pick from.

import { columnMoments } from "./camera.js";
import { element } from "./dom.js";
import { plainId } from "./ids.js";
import { canvasPainter } from "./paint_canvas.js";
import { hasFastWebgl, webglPainter } from "./paint_gl.js";
import { drawRulers } from "./rulers.js";

const NARROW = 600;
const BOTTOM = 26;
const LANES = 46;
/** Pixels of a row of time. */
export const TIME_ROW = 16;

/**
 * The surface; `draw(frame)` draws, `idAt(x, y)` and `momentAtX(x)` answer for the picture that was drawn last.
 * `raster(frame, moments, width, height, ids)` fills the ids.
 */
export function newSurface(wanted, raster, attributes) {
  const picture = element("canvas", { class: "map-picture", "aria-hidden": "true" });
  const over = element("canvas", { class: "map-over", "aria-hidden": "true" });
  // Keys move it and details are read beside it: to a screen reader it is a thing to operate, and no picture.
  const node = element("div", { class: "map-surface", tabindex: "0", role: "application", ...attributes }, picture, over);
  const painter = (wanted === "webgl2" || (wanted === "best" && hasFastWebgl()) ? webglPainter(picture) : null) ?? canvasPainter(picture);
  const drawn = { width: 0, height: 0, ids: new Uint32Array(0), moments: new Int32Array(0), ratio: 1 };
  const surface = {
    node,
    painter,
    drawn,
    /** Rows of time that are drawn below the lanes, whether there are lanes, and whether there is no memory; set before drawing. */
    timeRows: 0,
    hasLanes: false,
    flat: false,
    timeTop: () => (surface.hasLanes ? LANES : 6),
    laneHeight: () => surface.timeTop() + surface.timeRows * TIME_ROW,
    plot() {
      const left = node.clientWidth < NARROW ? 62 : 90;
      const height = surface.flat ? 1 : Math.max(node.clientHeight - 4 - BOTTOM - surface.laneHeight(), 50);
      return { left, top: 4, width: Math.max(node.clientWidth - left, 50), height };
    },
    draw(frame) {
      const { ratio } = frame;
      const plot = surface.plot();
      const [width, height] = [Math.round(plot.width * ratio), Math.round(plot.height * ratio)];
      fitTo(drawn, picture, plot, width, height);
      drawn.ratio = ratio;
      drawn.moments = columnMoments(frame.data, frame.axis, frame.camera, width, frame.grain);
      raster(frame, drawn.moments, width, height, drawn.ids);
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
      const plot = surface.plot();
      const around = { plot, width, height, ratio, flat: surface.flat, laneHeight: surface.laneHeight(), timeTop: surface.timeTop(), timeRow: TIME_ROW, moments: drawn.moments };
      drawRulers(over.getContext("2d"), { ...frame, ...around }, frame.colors);
    },
    /** The id drawn at a place of the node, in CSS pixels; 0 outside. */
    idAt(x, y) {
      const plot = surface.plot();
      const column = Math.floor((x - plot.left) * drawn.ratio);
      const row = drawn.height - 1 - Math.floor((y - plot.top) * drawn.ratio);
      if (column < 0 || row < 0 || column >= drawn.width || row >= drawn.height) return 0;
      return plainId(drawn.ids[column * drawn.height + row]);
    },
    /** The distinct ids drawn between two places, given as shares of the plot. */
    idsWithin(from, to) {
      const columns = [from.shareX, to.shareX].sort((one, other) => one - other).map((share) => Math.min(Math.max(Math.round(share * drawn.width), 0), drawn.width));
      const rows = [from.shareY, to.shareY].sort((one, other) => one - other).map((share) => Math.min(Math.max(Math.round(share * drawn.height), 0), drawn.height));
      const found = new Set();
      for (let column = columns[0]; column < columns[1]; column += 1) {
        for (let row = rows[0]; row < rows[1]; row += 1) found.add(plainId(drawn.ids[column * drawn.height + row]));
      }
      found.delete(0);
      return found;
    },
    /** The moment that the column at x shows; -1 for none. */
    momentAtX(x) {
      return drawn.moments[Math.floor((x - surface.plot().left) * drawn.ratio)] ?? -1;
    },
    /** The row of time at a place; -1 outside of them. */
    timeRowAt(place) {
      const plot = surface.plot();
      const row = Math.floor((place.y - plot.top - plot.height - surface.timeTop()) / TIME_ROW);
      return row >= 0 && row < surface.timeRows ? row : -1;
    },
  };
  return surface;
}

function fitTo(drawn, picture, plot, width, height) {
  if (drawn.width !== width || drawn.height !== height) {
    Object.assign(drawn, { width, height, ids: new Uint32Array(width * height) });
    picture.width = width;
    picture.height = height;
  }
  Object.assign(picture.style, { left: `${plot.left}px`, top: `${plot.top}px`, width: `${plot.width}px`, height: `${plot.height}px` });
}

/** Copy both canvases of a surface into one, on the colour of the panel. */
export function pictureOf(surface, background) {
  const [picture, over] = surface.node.querySelectorAll("canvas");
  const ratio = devicePixelRatio;
  const canvas = element("canvas", { width: over.width, height: over.height });
  const context = canvas.getContext("2d");
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const plot = surface.plot();
  context.drawImage(picture, plot.left * ratio, plot.top * ratio, plot.width * ratio, plot.height * ratio);
  context.drawImage(over, 0, 0);
  return canvas;
}
