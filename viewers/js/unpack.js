// From the text of a packed map to its columns: base64, zlib, byte planes, differences. Runs in the worker.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f8: Float64Array };

/** The bytes that base64 text stands for. */
export function bytesOfBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

/** A zlib stream unpacked into `total` bytes; `progress` hears the share that is done. */
export async function inflate(bytes, total, progress) {
  const out = new Uint8Array(total);
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let done = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    out.set(part.value, done);
    done += part.value.length;
    progress(done / total);
  }
  if (done !== total) throw new Error(`the map holds ${done} bytes where ${total} were expected`);
  return out;
}

/** The number of bytes that columns take. */
export function packedBytes(specs) {
  return specs.reduce((sum, spec) => sum + spec.length * TYPES[spec.type].BYTES_PER_ELEMENT, 0);
}

/** The columns by name. */
export function unpackColumns(bytes, specs) {
  const columns = {};
  let offset = 0;
  for (const spec of specs) {
    const width = TYPES[spec.type].BYTES_PER_ELEMENT;
    const size = spec.length * width;
    const values = joinedPlanes(bytes.subarray(offset, offset + size), spec.length, width, TYPES[spec.type]);
    columns[spec.name] = spec.ascending ? summed(values) : values;
    offset += size;
  }
  return columns;
}

// All lowest bytes come first, then all second ones: equal bytes side by side pack better.
function joinedPlanes(planes, length, width, Type) {
  if (width === 1) return planes.slice();
  const bytes = new Uint8Array(length * width);
  for (let plane = 0; plane < width; plane += 1) {
    const first = plane * length;
    for (let row = 0, place = plane; row < length; row += 1, place += width) bytes[place] = planes[first + row];
  }
  return new Type(bytes.buffer);
}

function summed(differences) {
  let total = 0;
  for (const one of differences) total += one;
  const values = total < 2 ** 32 ? new Uint32Array(differences.length) : new Float64Array(differences.length);
  total = 0;
  for (let row = 0; row < values.length; row += 1) {
    total += differences[row];
    values[row] = total;
  }
  return values;
}
