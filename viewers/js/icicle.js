// An icicle: what a whole is made of, level by level, each part as wide as its share. Click to go in, click above to leave.

import { element } from "./dom.js";
import { channels } from "./inks.js";

const ROW = 26;
const SMALLEST = 0.0008;

/** A tree node: `{ label, value, color, hatched, children }`, largest children first. */
export function newNode(label, color = null, hatched = false) {
  return { label, value: 0, count: 0, color, hatched, children: new Map() };
}

/** Add a value along a path of `[label, color, hatched]`. */
export function addPath(tree, path, value) {
  let node = tree;
  node.value += value;
  node.count += 1;
  for (const [label, color, hatched] of path) {
    let child = node.children.get(label);
    if (child === undefined) node.children.set(label, (child = newNode(label, color ?? node.color, hatched ?? node.hatched)));
    child.value += value;
    child.count += 1;
    node = child;
  }
}

/** The figure of a tree. `write` turns a value into text. */
export function icicle(tree, write) {
  const figure = element("div", { class: "icicle", role: "group", "aria-label": "what the bytes are for, level by level" });
  const open = (path) => {
    figure.replaceChildren();
    const focus = path.at(-1);
    path.forEach((node, depth) => figure.append(block(node, 0, 1, depth, tree.value, write, () => open(path.slice(0, depth + 1)))));
    const deepest = addChildren(figure, focus, 0, 1, path.length, tree.value, write, (down) => open([...path, ...down]), []);
    figure.style.height = `${Math.max(deepest, path.length) * ROW}px`;
  };
  open([tree]);
  return figure;
}

function addChildren(figure, node, left, width, depth, total, write, open, above) {
  let deepest = depth;
  let at = left;
  for (const child of [...node.children.values()].sort((one, other) => other.value - one.value)) {
    const wide = node.value ? (width * child.value) / node.value : 0;
    if (wide >= SMALLEST) {
      const down = [...above, child];
      figure.append(block(child, at, wide, depth, total, write, () => open(down)));
      deepest = Math.max(deepest, depth + 1, addChildren(figure, child, at, wide, depth + 1, total, write, open, down));
    }
    at += wide;
  }
  return deepest;
}

function block(node, left, width, depth, total, write, onclick) {
  const percent = total ? ` (${((100 * node.value) / total).toFixed(1)} %)` : "";
  const style = { left: `${(left * 100).toFixed(4)}%`, width: `${(width * 100).toFixed(4)}%`, top: `${depth * ROW}px`, "--color": node.color ?? "var(--phase-forward)" };
  const title = `${node.label}\n${write(node.value)}${percent}, ${node.count.toLocaleString("en-US")} allocations`;
  const kind = [node.hatched && "hatched", node.color ? isDark(node.color) && "deep" : "plain"].filter(Boolean).join(" ");
  return element("button", { type: "button", class: `ice ${kind}`, style, title, onclick }, width > 0.03 && element("span", {}, node.label), width > 0.1 && element("span", { class: "ice-value number" }, write(node.value)));
}

// Whether white is read better on a colour than the dark ink: the two are equally readable at this relative luminance.
function isDark(color) {
  const [red, green, blue] = channels(color).map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.185;
}
