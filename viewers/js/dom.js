// Elements from data. Text goes in as text nodes only: nothing here, and nothing elsewhere, parses a string as HTML.

/** An element with attributes and children (elements, texts, arrays of them; null and false are left out). */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, item]) => node.style.setProperty(key, item));
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A section of the page with its heading, and a line below it. */
export function section(name, heading, lead, ...children) {
  return element(
    "section",
    { id: name, "aria-labelledby": `${name}-heading` },
    element("div", { class: "section-head" }, element("h2", { id: `${name}-heading` }, heading), lead && element("p", { class: "lead" }, lead)),
    ...children,
  );
}

/** A heading of a column; one without a text is no heading. */
export function columnHead(label, attributes = {}) {
  return label === "" ? element("td", attributes) : element("th", { scope: "col", ...attributes }, label);
}

/** The colour patch of a category. */
export function swatch(color, hatched) {
  return element("span", { class: hatched ? "swatch hatched" : "swatch", style: { "--color": color }, "aria-hidden": "true" });
}

/** One bar of parts whose shares of the whole are given. */
export function stackedBar(parts, label) {
  const pieces = parts
    .filter((part) => part.share > 0)
    .map((part) => element("span", { class: part.hatched ? "piece hatched" : "piece", style: { "--color": part.color, "flex-grow": part.share }, title: part.title }));
  return element("div", { class: "stacked-bar", role: "img", "aria-label": label }, pieces);
}

/** A single bar of a share from 0 to 1. */
export function meter(share, kind = "") {
  return element("span", { class: `meter ${kind}`, "aria-hidden": "true" }, element("span", { style: { width: `${(share * 100).toFixed(2)}%` } }));
}

/** A path that may break after each separator, since paths are longer than their column. */
export function breakable(text) {
  return text.split(/(?<=[/.:_])/).flatMap((part) => [part, element("wbr")]);
}
