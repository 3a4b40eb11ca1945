// While the tab for many photos is shown, files that are dropped or pasted anywhere on the page, and
// those in dropped folders, go into its box. Without this, a browser opens such files in place of the
// page, and Gradio's box takes no folders.
const box = () => document.querySelector("#many-files");
const isManyShown = () => Boolean(box()?.offsetParent);

const filesIn = async (entry) => {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A browser gives about a hundred entries at a time, and none in the end.
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (some.length === 0) break;
    found.push(...some);
  }
  found.sort((a, b) => a.name.toLowerCase().localeCompare(b.name.toLowerCase()));
  return (await Promise.all(found.map(filesIn))).flat();
};

const giveMany = (files) => {
  const input = box().querySelector("input[type=file]");
  if (!input || files.length === 0) return; // the box has no input while it works
  const transfer = new DataTransfer();
  files.forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
};

document.addEventListener("dragover", (event) => {
  if (isManyShown() && hasFiles(event)) event.preventDefault();
});
// In the capture phase, before Gradio's box sees it.
const takeDrop = async (event) => {
  if (!isManyShown() || !hasFiles(event)) return;
  event.preventDefault();
  event.stopPropagation();
  // Browsers forget what was dropped as soon as this function waits.
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
  const files = [...event.dataTransfer.files];
  giveMany(entries.every(Boolean) ? (await Promise.all(entries.map(filesIn))).flat() : files);
};
document.addEventListener("drop", takeDrop, { capture: true });
document.addEventListener("paste", (event) => {
  if (!isManyShown() || event.clipboardData.files.length === 0) return;
  event.preventDefault();
  giveMany([...event.clipboardData.files]);
});

// Gradio refuses all files if one is too large. Here only the large ones are left out, which a line
// says that stays until other files are given.
const leaveOutLarge = (event) => {
  const { target: input } = event;
  if (!isManyShown() || input.type !== "file" || input.files.length === 0) return;
  const isLarge = (file) => file.size > props.max_megabytes * 1e6;
  const large = [...input.files].filter(isLarge).map(({ name }) => name);
  document.querySelector("#many-large")?.remove();
  if (large.length === 0) return;
  const text = `Left out, because they are larger than ${props.max_megabytes} MB: ${large.join(", ")}`;
  box().after(make("p", { id: "many-large", role: "alert", textContent: text }));
  const transfer = new DataTransfer();
  [...input.files].filter((file) => !isLarge(file)).forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  if (transfer.files.length === 0) event.stopImmediatePropagation();
};
document.addEventListener("change", leaveOutLarge, { capture: true });
