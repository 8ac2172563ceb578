// Questions about allocations: what one is, which others are like it, which a search means, what is live. No drawing.

/** The indices of the frames of a row's stack, innermost first. */
export function frameRowsOf(data, row) {
  const found = [];
  for (let stack = data.stack[row]; stack > 0 && found.length < 1000; stack = data.stackParent[stack - 1]) found.push(data.stackFrame[stack - 1]);
  return found;
}

/** The frames of a row's stack, innermost first. */
export function framesOf(data, view, row) {
  return frameRowsOf(data, row).map((frame) => view.frames[frame]);
}

/** The index of the frame that says who asked: the innermost of those of the highest class; -1 without a stack. */
export function headlineFrame(data, view, row) {
  let best = -1;
  for (let stack = data.stack[row]; stack > 0; stack = data.stackParent[stack - 1]) {
    const frame = data.stackFrame[stack - 1];
    if (best < 0 || view.frame_class[frame] > view.frame_class[best]) best = frame;
  }
  return best;
}

/** What an allocation is called: its owner, or what autograd keeps it for; null where nobody said. */
export function nameOf(data, view, row) {
  if (data.owner[row]) return view.owners[data.owner[row] - 1][0];
  return data.saved[row] ? `saved for ${view.saved_for[data.saved[row] - 1][0]}` : null;
}

/** What an allocation belongs to: its owner, the operation that needs it in backward, else the line that asked for it. */
export function operationOf(data, view, row) {
  if (data.owner[row]) return view.owners[data.owner[row] - 1][0];
  if (data.saved[row]) return view.saved_for[data.saved[row] - 1][0];
  const frame = headlineFrame(data, view, row);
  return frame < 0 ? "no stack recorded" : view.frame_names[frame];
}

/** The rows in use at a moment. */
export function liveAt(data, moment) {
  const rows = [];
  for (let row = 0; row < data.count && data.start[row] <= moment; row += 1) if (data.inUseEnd[row] > moment) rows.push(row);
  return rows;
}

/** For each row whether a search means it; null for an empty search. Every word must be found, as ">1MiB" or as text. */
export function searched(data, view, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const tests = words.map((word) => sizeTest(data, word) ?? textTest(data, view, word));
  return Uint8Array.from({ length: data.count }, (_, row) => (tests.every((test) => test(row)) ? 1 : 0));
}

function sizeTest(data, word) {
  const match = /^([<>=])(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/.exec(word);
  if (match === null) return null;
  const bytes = Number(match[2]) * 1024 ** ["", "k", "m", "g", "t"].indexOf(match[3]);
  return { "<": (row) => data.size[row] < bytes, ">": (row) => data.size[row] > bytes, "=": (row) => data.size[row] === Math.round(bytes) }[match[1]];
}

function textTest(data, view, word) {
  const has = (text) => text !== null && text.toLowerCase().includes(word);
  const categories = view.categories.map((one) => has(one.label) || has(one.name));
  const modules = view.modules.map(has);
  const owners = view.owners.map((one) => one.some(has));
  const saved = view.saved_for.map((one) => one.some(has));
  const stacks = matchingStacks(data, view.frames.map(has));
  return (row) =>
    categories[data.category[row]] || (data.module[row] && modules[data.module[row] - 1]) || (data.owner[row] && owners[data.owner[row] - 1]) ||
    (data.saved[row] && saved[data.saved[row] - 1]) || (data.stack[row] && stacks[data.stack[row] - 1]);
}

/** For each stack whether any of its frames is among those wanted. */
export function matchingStacks(data, frames) {
  const known = new Int8Array(data.stackFrame.length).fill(-1);
  for (let stack = 0; stack < known.length; stack += 1) {
    const path = [];
    let at = stack;
    while (at >= 0 && known[at] < 0 && !frames[data.stackFrame[at]] && path.length <= known.length) {
      path.push(at);
      at = data.stackParent[at] - 1;
    }
    const found = at < 0 ? 0 : known[at] >= 0 ? known[at] : 1;
    if (at >= 0) known[at] = found;
    for (const one of path) known[one] = found;
  }
  return Array.from(known, (one) => one === 1);
}

/** For each row whether it has the same stack as another; only itself where that has none. */
export function sameStack(data, row) {
  const stack = data.stack[row];
  return Uint8Array.from({ length: data.count }, (_, other) => (stack ? data.stack[other] === stack : other === row) ? 1 : 0);
}

/** How many rows are chosen, and their bytes. */
export function countChosen(data, chosen) {
  let [rows, bytes] = [0, 0];
  for (let row = 0; row < data.count; row += 1) {
    if (chosen[row]) {
      rows += 1;
      bytes += data.size[row];
    }
  }
  return { rows, bytes };
}

/** The names of the spans of a lane that hold a moment, the innermost. */
export function spanAt(view, lane, moment) {
  let found = null;
  for (const span of view.spans) {
    if (span[0] > moment) break;
    if (span[2] === lane && span[1] >= moment) found = span;
  }
  return found;
}

/** "step 2 · forward" at a moment; an empty text where nothing was marked. */
export function whereAt(view, moment) {
  return ["step", "phase"].map((lane) => spanAt(view, lane, moment)?.[3]).filter(Boolean).join(" · ");
}
