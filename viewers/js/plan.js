// The chart of a plan: each layout a circle, memory across, throughput up; larger is faster, colour is utilisation.
// The payload holds columns, one entry a layout. Nothing of it is decided here but where it is drawn.

import {} from "./whatif.js";
const planPayload = JSON.parse(document.getElementById("payload").textContent);
const planColumns = planPayload.columns;
const planChart = document.getElementById("chart");
const planFilters = ["tp", "pp", "cp", "ep", "zero", "recompute"];
const planSize = { width: 1100, height: 460, left: 74, right: 20, top: 14, bottom: 44 };
const PLAN_GIB = 1024 ** 3;

function planShape(name, attributes, parent) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  parent.append(shape);
  return shape;
}

// From blue over green to yellow, in lightness too, so that it reads without colour.
export function planColor(share) {
  const clamped = Math.min(Math.max(share, 0), 1);
  return `hsl(${260 - 200 * clamped} 65% ${32 + 30 * clamped}%)`;
}

// Round numbers that divide a range into about so many parts.
export function planTicks(low, high, parts) {
  const rough = Math.max(high - low, 1e-12) / parts;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) ticks.push(value);
  return ticks;
}

export function planMatches(columns, row, chosen) {
  return Object.entries(chosen).every(([name, value]) => value === "" || String(columns[name][row]) === value);
}

function planDescribe(row) {
  const c = planColumns;
  const axes = ["dp", "tp", "pp", "cp", "ep"].map((name) => `${name} ${c[name][row]}`).join(" · ");
  const memory = (c.peak_bytes[row] / PLAN_GIB).toFixed(1);
  const speed = Math.round(c.tokens_per_second_per_gpu[row]).toLocaleString("en");
  const fits = c.fits[row] ? "" : " · does not fit";
  return `${axes} · ZeRO-${c.zero[row]} · recompute ${c.recompute[row]} · micro-batch ${c.micro_batch[row]} × ` +
    `${c.accumulation[row]}: ${memory} GiB, ${speed} tokens/s/GPU, MFU ${(100 * c.mfu[row]).toFixed(1)} %${fits}`;
}

function planChosen() {
  return Object.fromEntries(planFilters.map((name) => [name, document.getElementById(`filter-${name}`)?.value ?? ""]));
}

function planDraw() {
  planChart.replaceChildren();
  const chosen = planChosen();
  const rows = planColumns.dp.map((_, row) => row).filter((row) => planMatches(planColumns, row, chosen));
  document.getElementById("count").textContent = `${rows.length} layouts drawn`;
  if (!rows.length) return;
  const { width, height, left, right, top, bottom } = planSize;
  const capacity = planPayload.capacity_bytes / PLAN_GIB;
  const memory = (row) => planColumns.peak_bytes[row] / PLAN_GIB;
  const speed = (row) => planColumns.tokens_per_second_per_gpu[row];
  // What is far beyond the capacity is drawn at the edge: it would press the rest together.
  const farthest = Math.min(Math.max(...rows.map(memory), capacity) * 1.03, capacity * 2);
  const fastest = Math.max(...rows.map(speed)) * 1.06;
  const x = (value) => left + (Math.min(value, farthest) / farthest) * (width - left - right);
  const y = (value) => height - bottom - (value / fastest) * (height - top - bottom);
  for (const tick of planTicks(0, farthest, 8)) {
    planShape("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }, planChart);
    planShape("text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, planChart).textContent = tick;
  }
  for (const tick of planTicks(0, fastest, 6)) {
    planShape("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }, planChart);
    const label = planShape("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, planChart);
    label.textContent = tick.toLocaleString("en");
  }
  const caption = { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" };
  planShape("text", caption, planChart).textContent = "GiB on the fullest GPU";
  const upward = { x: 14, y: height / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${height / 2})` };
  planShape("text", upward, planChart).textContent = "tokens a second and GPU";
  const limit = { class: "limit", x1: x(capacity), x2: x(capacity), y1: top, y2: height - bottom };
  planShape("line", limit, planChart);
  const best = Math.max(...planColumns.mfu, 1e-9);
  for (const row of [...rows].sort((a, b) => speed(a) - speed(b))) {
    const share = planColumns.mfu[row] / best;
    const radius = 2 + 5 * Math.sqrt(speed(row) / fastest);
    const place = { cx: x(memory(row)), cy: y(speed(row)), r: radius, fill: planColor(share), "data-row": row };
    const circle = planShape("circle", { ...place, class: planColumns.fits[row] ? "" : "over" }, planChart);
    planShape("title", {}, circle).textContent = planDescribe(row);
  }
  const frontier = planPayload.frontier.filter(([bytes]) => bytes / PLAN_GIB <= farthest);
  const points = frontier.map(([bytes, tokens]) => `${x(bytes / PLAN_GIB)},${y(tokens)}`).join(" ");
  planShape("polyline", { class: "frontier", points }, planChart);
}

function planTell(event) {
  const row = event.target.dataset?.row;
  if (row === undefined) return;
  for (const other of planChart.querySelectorAll(".chosen")) other.classList.remove("chosen");
  event.target.classList.add("chosen");
  document.getElementById("told").textContent = planDescribe(Number(row));
}

function planStart() {
  for (const name of planFilters) {
    const select = document.getElementById(`filter-${name}`);
    const values = [...new Set(planColumns[name])].sort((a, b) => (a > b ? 1 : -1));
    if (values.length < 2) {
      select.parentElement.remove();
      continue;
    }
    for (const value of values) select.append(new Option(String(value), String(value)));
    select.addEventListener("change", planDraw);
  }
  const ramp = document.getElementById("ramp");
  for (let step = 0; step < 32; step += 1) {
    planShape("rect", { x: step * 5, y: 0, width: 5, height: 10, fill: planColor(step / 31) }, ramp);
  }
  const best = 100 * Math.max(...planColumns.mfu, 0);
  document.getElementById("ramp-end").textContent = `${best.toFixed(0)} %`;
  planChart.addEventListener("pointerover", planTell);
  planChart.addEventListener("click", planTell);
  planDraw();
  document.documentElement.dataset.drawn = "true";
}

planStart();
