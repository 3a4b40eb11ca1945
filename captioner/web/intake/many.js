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
  if (!input) return tellBelow("Wait until these photos are done."); // it has none while it works
  if (files.length === 0) return;
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

// A line below the box, which stays until other files are given.
const tellBelow = (text) => {
  document.querySelector("#many-large")?.remove();
  if (text) box().after(make("p", { id: "many-large", role: "alert", textContent: text }));
};

// Folders hold files of other kinds, too. The server says what is wrong with a file that is only
// named like a picture.
const isPicture = ({ type, name }) =>
  !name.startsWith(".") &&
  (/^image\//.test(type) || /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|jp2|ppm|mpo|hei[cf])$|^[^.]+$/i.test(name));
const namesOf = (files) => {
  const names = files.slice(0, 5).map(({ name }) => name);
  const more = files.length - names.length;
  return names.join(", ") + (more ? ` and ${more} more` : "");
};

// Files that cannot be captioned are left out before they are sent, which a line says. Gradio would
// refuse all files if one is too large.
const leaveOut = (event) => {
  const { target: input } = event;
  if (!isManyShown() || input.type !== "file" || input.files.length === 0) return;
  const { max_megabytes: megabytes, max_photos: most } = props;
  const given = [...input.files];
  // Browsers send a folder in the order of its disk.
  if (input.webkitdirectory) given.sort((a, b) => a.name.toLowerCase().localeCompare(b.name.toLowerCase()));
  const pictures = given.filter(isPicture);
  const isLarge = (file) => file.size > megabytes * 1e6;
  const usable = pictures.filter((file) => !isLarge(file));
  const leftOut = [
    [`are larger than ${megabytes} MB`, pictures.filter(isLarge)],
    ["are not pictures", given.filter((file) => !isPicture(file))],
    [`come after the first ${most} photos, which is the most at a time`, usable.slice(most)],
  ].filter(([, files]) => files.length);
  tellBelow(leftOut.map(([why, files]) => `Left out, because they ${why}: ${namesOf(files)}`).join(". "));
  if (leftOut.length === 0) return;
  const transfer = new DataTransfer();
  usable.slice(0, most).forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  if (transfer.files.length === 0) event.stopImmediatePropagation();
};
document.addEventListener("change", leaveOut, { capture: true });
