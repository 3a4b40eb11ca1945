// The ways to give a photo: a file, the clipboard, a drop, an example. Each file goes to `give`.
const give = async (files) => {
  const [file, ...others] = files;
  if (!file) return;
  if (others.length) return emit("refused", `These are ${files.length} files. ${MANY}`);
  const advice = adviceFor(file);
  if (advice) emit("refused", `${file.name || "What you gave"} ${advice}`);
  else emit("photo", { file: isHeic(file) ? await asJpeg(file) : file });
};

const MANY = "Give one photo here; the tab “Many photos” takes more, and whole folders.";

// A canvas with the picture, of which the longer side has at most `longest` pixels.
const drawOnCanvas = (picture, { width, height }, longest = Infinity) => {
  const scale = Math.min(1, longest / Math.max(width, height));
  const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = make("canvas", { width: w, height: h });
  canvas.getContext("2d").drawImage(picture, 0, 0, w, h);
  return canvas;
};

// iPhones make HEIC files. The server has no safe decoder for them, but Apple's browsers have one.
const isHeic = ({ type, name }) => /hei[cf]/i.test(type) || /\.hei[cf]$/i.test(name);
const asJpeg = async (file) => {
  try {
    const bitmap = await createImageBitmap(file);
    const canvas = drawOnCanvas(bitmap, bitmap, 2048);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return new File([blob], file.name.replace(/\.[^.]*$/, ".jpg"), { type: blob.type });
  } catch {
    return file; // the server's refusal says what to do
  }
};

// What a visitor can do with a file that is not a photo.
const ADVICE = [
  [/svg/i, "is a drawing (SVG). Export it as a PNG, or take a screenshot of it."],
  [/pdf/i, "is a document (PDF). Export its page as a PNG, or take a screenshot of it."],
  [/^video\/|\.(mp4|mov|avi|mkv|webm|m4v)$/i, "is a video. Stop it where you like it, and take a screenshot."],
];
const adviceFor = ({ type, name }) =>
  ADVICE.find(([pattern]) => pattern.test(type) || pattern.test(name.split(/(?=\.[^.]*$)/)[1]))?.[1];

const isVisible = () => element.offsetParent !== null; // false while another tab of the page is shown
const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
// Links and text that are dragged onto a text field belong there.
const FIELDS = "input, textarea, [contenteditable]";
const hasLink = ({ dataTransfer, target }) =>
  dataTransfer?.types.includes("text/uri-list") && !target.closest?.(FIELDS);
const folderIn = (item) => {
  const entry = item.webkitGetAsEntry?.();
  return entry?.isDirectory ? entry : null;
};
const NO_ADDRESS = "This page does not fetch addresses. Copy the picture itself, or save it first.";

find(".file").addEventListener("click", () => find("#photo-file").click());
listen("choose", () => find("#photo-file").click());
for (const input of findAll("input[type=file]")) {
  input.addEventListener("change", () => {
    give(input.files);
    input.value = ""; // the same file may be given again
  });
}

find(".examples").append(
  ...props.examples.map(({ src, goesWrong }, i) => {
    const button = make("button", { type: "button" }, make("img", { src, alt: "" }));
    button.ariaLabel = `Example photo ${i + 1}`;
    if (goesWrong) {
      button.title = button.ariaDescription = "The model gets this one wrong.";
      button.append(make("span", { className: "wrong", ariaHidden: "true", textContent: "goes wrong" }));
    }
    button.addEventListener("click", () => emit("photo", { number: i + 1 }));
    return button;
  }),
);

let hiding = null; // a timer, because no event says that a drag has left the page
document.addEventListener("dragover", (event) => {
  if (!isVisible() || !(hasFiles(event) || hasLink(event))) return;
  event.preventDefault();
  if (!hasFiles(event)) return; // it may be dropped, to be told that addresses are not fetched
  find(".drop").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (find(".drop").hidden = true), 400);
});
document.addEventListener("drop", (event) => {
  find(".drop").hidden = true;
  if (!isVisible() || event.defaultPrevented) return;
  if (!hasFiles(event) && !hasLink(event)) return;
  event.preventDefault();
  const folder = [...event.dataTransfer.items].map(folderIn).find(Boolean);
  if (folder) emit("refused", `${folder.name} is a folder. ${MANY}`);
  else if (event.dataTransfer.files.length) give(event.dataTransfer.files);
  else emit("refused", NO_ADDRESS);
});

document.addEventListener("paste", (event) => {
  if (!isVisible()) return;
  const { files, types } = event.clipboardData;
  const isTyping = event.target.closest?.(FIELDS);
  // Programs for tables and letters put a picture of the text beside it.
  if (isTyping && types.includes("text/plain")) return;
  if (files.length) {
    event.preventDefault();
    give(files);
  } else if (!isTyping) {
    const isAddress = /^https?:/.test(event.clipboardData.getData("text/plain"));
    emit("refused", isAddress ? NO_ADDRESS : "There is no picture in the clipboard.");
  }
});

find(".paste").addEventListener("click", async () => {
  let items;
  try {
    items = await navigator.clipboard.read();
  } catch {
    const how = "Press Ctrl+V instead (on a Mac: ⌘V).";
    return emit("refused", `Your browser does not let this page read the clipboard. ${how}`);
  }
  for (const item of items) {
    const type = item.types.find((t) => t.startsWith("image/"));
    if (!type) continue;
    const blob = await item.getType(type);
    return give([new File([blob], `pasted.${type.split("/")[1].split("+")[0]}`, { type })]);
  }
  emit("refused", "There is no picture in the clipboard.");
});
