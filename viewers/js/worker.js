// The worker of a map: unpacks it and hands its arrays over, so that the page stays responsive.

import { buildMapData } from "./mapdata.js";
import { bytesOfBase64, inflate, packedBytes, unpackColumns } from "./unpack.js";

onmessage = async (event) => {
  const { text, view } = event.data;
  try {
    const bytes = await inflate(bytesOfBase64(text), packedBytes(view.columns), (share) => postMessage({ share }));
    const data = buildMapData(unpackColumns(bytes, view.columns), view);
    const buffers = new Set([...Object.values(data), ...Object.values(data.checkpoints)].filter(ArrayBuffer.isView).map((array) => array.buffer));
    postMessage({ data }, [...buffers]);
  } catch (error) {
    postMessage({ error: String(error.message ?? error) });
  }
};
