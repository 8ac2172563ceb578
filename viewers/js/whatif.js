// The page of a what-if stands complete in its HTML; this only switches between light and dark.

const whatifRoot = document.documentElement;

function switchTheme() {
  const inForce = whatifRoot.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  whatifRoot.dataset.theme = inForce === "dark" ? "light" : "dark";
}

document.getElementById("theme").addEventListener("click", switchTheme);
document.addEventListener("keydown", (event) => {
  if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) switchTheme();
});
whatifRoot.dataset.ready = "true";
