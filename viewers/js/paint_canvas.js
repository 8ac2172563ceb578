// Paints ids on a 2D canvas: the same picture as paint_gl.js, where there is no WebGL2 or only an emulated one.
//
// Every colour that an id can have is mixed once, when inks or theme change, so that a pixel is a look into a table.

import { EDGE, plainId } from "./ids.js";
import { CHOSEN, DIMMED, FREE, HATCHED } from "./inks.js";

// Ids lie column by column and pixels row by row: by small squares both stay in the processor's cache.
const SQUARE = 32;

/** A painter on a canvas. */
export function canvasPainter(canvas) {
  const context = canvas.getContext("2d", { alpha: false });
  let inks = new Uint8Array(8);
  let colors = { panel: [255, 255, 255], line: [0, 0, 0], free: [238, 238, 238] };
  let tables = null;
  let image = null;
  return {
    kind: "canvas",
    setColors(value) {
      colors = value;
      tables = null;
    },
    setInks(bytes) {
      inks = bytes;
      tables = null;
    },
    draw(ids, width, height) {
      tables ??= mixedTables(inks, colors);
      if (image === null || image.width !== width || image.height !== height) image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      paintPixels(ids, width, height, tables, pixels);
      if (tables.chosen > 0) outline(ids, width, height, tables, pixels);
      context.putImageData(image, 0, 0);
    },
    readPixel(x, y) { return [...context.getImageData(x, canvas.height - 1 - y, 1, 1).data]; },
  };
}

/** For each id its plain colour, that of its stripes and that of its edges; and the one id that is selected, or 0. */
export function mixedTables(inks, { panel, line, free }) {
  const count = inks.length / 4;
  const [plain, stripe, edge] = [new Uint32Array(count), new Uint32Array(count), new Uint32Array(count)];
  let chosen = 0;
  plain[0] = stripe[0] = edge[0] = packed(...panel);
  for (let id = 1; id < count; id += 1) {
    const flags = inks[id * 4 + 3];
    if (flags === FREE) {
      plain[id] = stripe[id] = edge[id] = packed(...free);
      continue;
    }
    const dim = flags & DIMMED ? 0.78 : 0;
    const red = toward(inks[id * 4], panel[0], dim);
    const green = toward(inks[id * 4 + 1], panel[1], dim);
    const blue = toward(inks[id * 4 + 2], panel[2], dim);
    plain[id] = packed(red, green, blue);
    edge[id] = packed(toward(red, panel[0], 0.42), toward(green, panel[1], 0.42), toward(blue, panel[2], 0.42));
    stripe[id] = flags & HATCHED ? packed(toward(red, panel[0], 0.45), toward(green, panel[1], 0.45), toward(blue, panel[2], 0.45)) : plain[id];
    if (flags & CHOSEN) chosen = id;
  }
  const outlined = chosen ? packed(...[0, 1, 2].map((channel) => toward(inks[chosen * 4 + channel], line[channel], 0.8))) : 0;
  return { plain, stripe, edge, chosen, outlined };
}

function paintPixels(ids, width, height, { plain, stripe, edge }, pixels) {
  for (let left = 0; left < width; left += SQUARE) {
    const right = Math.min(left + SQUARE, width);
    for (let low = 0; low < height; low += SQUARE) {
      const high = Math.min(low + SQUARE, height);
      for (let row = low; row < high; row += 1) {
        const target = (height - 1 - row) * width;
        for (let column = left; column < right; column += 1) {
          const id = ids[column * height + row];
          pixels[target + column] = id >= EDGE ? edge[id - EDGE] : ((column + row) & 7) < 2 ? stripe[id] : plain[id];
        }
      }
    }
  }
}

function outline(ids, width, height, { chosen, outlined }, pixels) {
  for (let at = 0; at < ids.length; at += 1) {
    if (plainId(ids[at]) !== chosen) continue;
    const row = at % height;
    const column = (at - row) / height;
    const near = [column > 0 ? at - height : at, column + 1 < width ? at + height : at, row > 0 ? at - 1 : at, row + 1 < height ? at + 1 : at];
    if (near.some((one) => plainId(ids[one]) !== chosen)) pixels[(height - 1 - row) * width + column] = outlined;
  }
}

function packed(red, green, blue) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function toward(value, other, share) {
  return Math.round(value + (other - value) * share);
}
