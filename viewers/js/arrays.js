// Long arrays of the payload: base64 of little-endian doubles, as every machine that runs a browser holds them.

const decoded = new Map();

/** The array that a reference names, decoded once. */
export function resolveArray(payload, reference) {
  const index = reference.$array;
  if (!decoded.has(index)) decoded.set(index, decodeDoubles(payload.arrays[index]));
  return decoded.get(index);
}

function decodeDoubles(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return new Float64Array(bytes.buffer);
}
