// Gets the arrays of a map from a worker, so that a large one does not hold up the page.

/** The arrays of one rank's map; `progress` hears shares from 0 to 1. A worker by URL fails from file://, one of a Blob works. */
export function loadMap(index, view, progress) {
  const url = URL.createObjectURL(new Blob([document.getElementById("worker").textContent], { type: "text/javascript" }));
  const worker = new Worker(url);
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.share !== undefined) return progress(data.share);
      worker.terminate();
      URL.revokeObjectURL(url);
      if (data.error) reject(new Error(data.error));
      else resolve(data.data);
    };
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ text: document.getElementById(`map-${index}`).textContent, view });
  });
}
