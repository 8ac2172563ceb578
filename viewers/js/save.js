// Out of the page: text to the clipboard, pictures and tables as files.

/** Offer bytes as a file. */
export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Put text on the clipboard; where the browser forbids that (a file in some), by way of a selected field. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

/** Rows as CSV: a field with a comma, a quote or a line end is quoted, and none can begin a formula. */
export function csvText(rows) {
  const field = (value) => {
    const text = String(value ?? "");
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(field).join(",")).join("\r\n");
}

/** Offer rows as a CSV file. */
export function saveCsv(rows, name) {
  saveBlob(new Blob([csvText(rows)], { type: "text/csv" }), name);
}
