// From the payload's figures to plotly: references become arrays, var(--name) becomes the colour of the theme.

import { plotlyReady } from "./plotlyload.js";

const decoded = new Map();

/** The array that a reference names, decoded once. */
export function resolveArray(payload, reference) {
  const index = reference.$array;
  if (!decoded.has(index)) decoded.set(index, decodeDoubles(payload.arrays[index]));
  return decoded.get(index);
}

/** Base64 of little-endian doubles, as every machine that runs a browser holds them. */
export function decodeDoubles(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return new Float64Array(bytes.buffer);
}

/** A copy of a figure that plotly may keep and change. */
export function resolveFigure(payload, value, style = getComputedStyle(document.documentElement)) {
  if (typeof value === "string") return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
  if (Array.isArray(value)) return value.map((item) => resolveFigure(payload, item, style));
  if (value === null || typeof value !== "object") return value;
  if ("$array" in value) return resolveArray(payload, value);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolveFigure(payload, item, style)]));
}

/** Draw a figure into an element, or draw it again. */
export async function draw(target, payload, figure) {
  await plotlyReady();
  const { data, layout } = resolveFigure(payload, figure);
  return Plotly.react(target, data, layout, { displayModeBar: false, responsive: true, doubleClick: "reset", showTips: false });
}

// What is drawn on a canvas over a figure, as a picture in it.
function picturesOver(target, over) {
  const axis = target._fullLayout.yaxis3;
  if (!over || over.hidden || !axis) return [];
  const [bottom, top] = axis.domain;
  return [{ source: over.toDataURL(), xref: "paper", yref: "paper", x: 0, y: top, sizex: 1, sizey: top - bottom, sizing: "stretch" }];
}

/** Save a drawn figure as a picture, on the colour of the page, with the canvas that lies over it. */
export function savePicture(target, name, over) {
  const background = getComputedStyle(document.documentElement).getPropertyValue("--panel").trim();
  return Plotly.toImage({ data: target.data, layout: { ...target.layout, paper_bgcolor: background, images: picturesOver(target, over) } }, { format: "png", width: 1400, height: 640, scale: 2 }).then((url) => {
    const link = document.createElement("a");
    link.href = url;
    link.download = `${name}.png`;
    link.click();
  });
}
