// Paints ids on a 2D canvas, pixel by pixel: the same picture as paint_gl.js where there is no WebGL2.

import { EDGE, plainId } from "./ids.js";
import { CHOSEN, DIMMED, FREE, HATCHED } from "./inks.js";

/** A painter on a canvas. */
export function canvasPainter(canvas) {
  const context = canvas.getContext("2d", { alpha: false });
  let inks = new Uint8Array(8);
  let colors = { panel: [255, 255, 255], line: [0, 0, 0], free: [238, 238, 238] };
  return {
    kind: "canvas",
    setColors(value) { colors = value; },
    setInks(bytes) { inks = bytes; },
    draw(ids, width, height) {
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let column = 0; column < width; column += 1) {
        for (let row = 0; row < height; row += 1) {
          pixels[(height - 1 - row) * width + column] = pixelColor(ids, inks, colors, column, row, width, height);
        }
      }
      context.putImageData(image, 0, 0);
    },
    readPixel(x, y) { return [...context.getImageData(x, canvas.height - 1 - y, 1, 1).data]; },
  };
}

function pixelColor(ids, inks, colors, column, row, width, height) {
  const at = column * height + row;
  const id = plainId(ids[at]);
  if (id === 0) return packed(colors.panel);
  const flags = inks[id * 4 + 3];
  if (flags === FREE) return packed(colors.free);
  let color = [inks[id * 4], inks[id * 4 + 1], inks[id * 4 + 2]];
  if (flags & HATCHED && ((column + row) & 7) < 2) color = mixed(color, colors.panel, 0.45);
  if (flags & DIMMED) color = mixed(color, colors.panel, 0.78);
  if (flags & CHOSEN) {
    const near = [column > 0 ? at - height : at, column + 1 < width ? at + height : at, row > 0 ? at - 1 : at, row + 1 < height ? at + 1 : at];
    if (near.some((one) => plainId(ids[one]) !== id)) color = mixed(color, colors.line, 0.8);
  } else if (ids[at] >= EDGE) color = mixed(color, colors.panel, 0.42);
  return packed(color);
}

function packed([red, green, blue]) {
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

function mixed(color, other, share) {
  return color.map((one, channel) => Math.round(one + (other[channel] - one) * share));
}
