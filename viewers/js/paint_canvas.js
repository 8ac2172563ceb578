// Paints ids on a 2D canvas, pixel by pixel: the same picture as paint_gl.js where there is no WebGL2.

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
    draw(ids, width, height, { sideEdges }) {
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let column = 0; column < width; column += 1) {
        for (let row = 0; row < height; row += 1) {
          pixels[(height - 1 - row) * width + column] = pixelColor(ids, inks, colors, column, row, width, height, sideEdges);
        }
      }
      context.putImageData(image, 0, 0);
    },
    readPixel(x, y) { return [...context.getImageData(x, canvas.height - 1 - y, 1, 1).data]; },
  };
}

function pixelColor(ids, inks, colors, column, row, width, height, sideEdges) {
  const at = column * height + row;
  const id = ids[at];
  const { panel, line, free } = colors;
  if (id === 0) return packed(panel);
  const flags = inks[id * 4 + 3];
  if (flags & FREE) return (column + row) % 8 === 0 ? mixed(free, line, 0.35) : packed(free);
  let [red, green, blue] = [inks[id * 4], inks[id * 4 + 1], inks[id * 4 + 2]];
  const blend = (color, share) => {
    red += (color[0] - red) * share;
    green += (color[1] - green) * share;
    blue += (color[2] - blue) * share;
  };
  if (flags & HATCHED && (column + row) % 7 < 2) blend(panel, 0.45);
  if (flags & DIMMED) blend(panel, 0.78);
  const below = row > 0 ? ids[at - 1] : id;
  const above = row + 1 < height ? ids[at + 1] : id;
  const before = column > 0 ? ids[at - height] : id;
  const after = column + 1 < width ? ids[at + height] : id;
  if (flags & CHOSEN && (below !== id || above !== id || before !== id || after !== id)) blend(line, 0.75);
  else if (below !== id && above === id && ids[Math.min(at + 2, (column + 1) * height - 1)] === id) blend(panel, 0.42);
  else if (sideEdges && before !== id && after === id && ids[column + 2 < width ? at + 2 * height : at] === id) blend(panel, 0.42);
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

function packed([red, green, blue]) {
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

function mixed(color, other, share) {
  return packed(color.map((one, channel) => Math.round(one + (other[channel] - one) * share)));
}
