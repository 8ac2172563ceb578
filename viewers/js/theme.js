// Light and dark: which is in force, and its colours as the canvases need them.

import { channels } from "./inks.js";

/** "light" or "dark". */
export function themeInForce() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** The colours of the theme in force for the map: as CSS and as channels. */
export function mapColors() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const phases = Object.fromEntries(["data", "forward", "backward", "optimizer", "evaluation", "other"].map((name) => [`--phase-${name}`, read(`--phase-${name}`)]));
  // The strongest phase is as dark as text on it would be.
  const phaseInk = { "--phase-optimizer": read("--phase-optimizer-ink") };
  return {
    rgb: { panel: channels(read("--panel")), line: channels(read("--ink")), free: channels(read("--free")) },
    ink: read("--ink"),
    muted: read("--muted"),
    line: read("--muted"),
    grid: read("--line"),
    accent: read("--accent"),
    bad: read("--bad"),
    panelText: read("--panel"),
    font: read("--font"),
    phases,
    phaseInk,
    style,
  };
}
