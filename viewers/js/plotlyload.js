// Plotly is most of the page's bytes. It stands there as text and becomes a script when a chart is first needed.

let loading = null;

/** Resolves when plotly can draw. */
export function plotlyReady() {
  loading ??= new Promise((resolve) => {
    // After the next paint, so that what needs no chart is seen first.
    requestAnimationFrame(() => setTimeout(() => {
      const script = document.createElement("script");
      // The policy of the page knows this text by its hash.
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
      resolve();
    }));
  });
  return loading;
}
