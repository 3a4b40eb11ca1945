// The photos and captions of this browser, the latest first. They are in localStorage, which has room
// for a few megabytes, so attention is kept with 256 levels. Gradio's BrowserState is not used: it
// writes some time later, when the page may be closed, and overwrites what another page has kept.
const PLACE = "captioner-history"; // in localStorage
const MOST_PHOTOS = 12;
const MOST_CAPTIONS = 12; // per photo
const MOST_CHARACTERS = 900_000; // of all entries together
const LONGEST_SIDE = 400; // of the photos that are kept, in pixels
let entries = []; // in the order of the list

// A map as text: its number of columns, and its levels from 0 to 255 in base64.
const pack = (map) => {
  const largest = Math.max(...map.flat()) || 1;
  const bytes = map.flat().map((value) => Math.round((255 * value) / largest));
  return `${map[0].length}:${btoa(String.fromCharCode(...bytes))}`;
};
const unpack = (text) => {
  const [columns, code] = text.split(":");
  const bytes = [...atob(code)].map((c) => c.charCodeAt(0));
  const sum = bytes.reduce((a, b) => a + b, 0) || 1;
  const rows = [];
  for (let i = 0; i < bytes.length; i += Number(columns)) {
    rows.push(bytes.slice(i, i + Number(columns)).map((b) => b / sum));
  }
  return rows;
};
const withMaps = (caption, change) => ({ ...caption, attention: caption.attention.map(change) });

const shrink = async (src) => {
  const image = make("img", { src });
  await image.decode();
  const size = { width: image.naturalWidth, height: image.naturalHeight };
  return drawOnCanvas(image, size, LONGEST_SIDE).toDataURL("image/jpeg", 0.75);
};

// Whether it is an entry as this page writes them. Other pages of this host share the place.
const isEntry = (entry) =>
  typeof entry?.photo === "string" &&
  Array.isArray(entry.size) &&
  Array.isArray(entry.captions) &&
  entry.captions.length > 0 &&
  entry.captions.every(isCaption);
const isCaption = (caption) =>
  Array.isArray(caption?.words) &&
  Array.isArray(caption.attention) &&
  caption.attention.every((map) => typeof map === "string");

// Reads the entries again, because other pages of this browser may have changed them.
const read = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE));
    return Array.isArray(kept) ? kept.filter(isEntry) : [];
  } catch {
    return entries; // the visitor has forbidden it, or other data is stored there
  }
};

const save = (kept) => {
  entries = kept.slice(0, MOST_PHOTOS);
  while (entries.length > 1 && JSON.stringify(entries).length > MOST_CHARACTERS) entries.pop();
  try {
    localStorage.setItem(PLACE, JSON.stringify(entries));
  } catch {
    // It is forbidden or full. Then the list lasts as long as this page.
  }
  list();
};

// Shows an entry of the history on the page.
const show = (entry) => {
  keepInTab("shown", entry.id);
  emit("restore", { ...entry, captions: entry.captions.map((c) => withMaps(c, unpack)) });
};

const list = () => {
  find(".past").hidden = entries.length === 0;
  find(".entries").replaceChildren(
    ...entries.map((entry) => {
      const button = make("button", { type: "button", title: entry.captions[0]?.text ?? "" });
      button.append(make("img", { src: entry.photo, alt: "" }));
      button.ariaLabel = `${entry.name}: ${entry.captions[0]?.text ?? ""}`;
      button.addEventListener("click", () => show(entry));
      return button;
    }),
  );
};

// Adds the captions on the page to those that are kept of the same photo, which may have been given
// several times.
listen("shown", async ({ captions, photo, key, ...rest }) => {
  keepInTab("shown", rest.id);
  const small = read().find(({ id }) => id === rest.id)?.photo ?? (await shrink(photo));
  const isSame = (entry) => entry.id === rest.id || entry.photo === small;
  const before = read().find(isSame); // read only now, because making the photo smaller takes a while
  const now = captions.map((caption) => withMaps(caption, pack));
  const isNow = (c) => now.some((n) => n.text === c.text && n.source === c.source && n.model === c.model);
  const earlier = (before?.captions ?? []).filter((c) => !isNow(c));
  const kept = [...now, ...earlier].slice(0, MOST_CAPTIONS);
  const others = read().filter((entry) => !isSame(entry));
  save([{ ...rest, photo: small, captions: kept }, ...others]);
});
const refresh = () => {
  entries = read();
  list();
};
addEventListener("storage", refresh); // another page of this browser has written
find(".clear").addEventListener("click", () => save([]));
refresh();

// The page has been opened. After a reload, and after the way back, it shows what this tab has shown.
// Gradio reloads the page when it has lost the server and found it again. Otherwise, a link may ask for
// an example.
listen("link", () => {
  const [opened] = performance.getEntriesByType("navigation");
  const again = opened?.type !== "navigate";
  const entry = again && entries.find(({ id }) => id === keptInTab("shown"));
  const number = Number(new URLSearchParams(location.search).get("example"));
  if (again && keptInTab("asked")) {
    emit("refused", "The page was reloaded before the server had answered. Ask again.");
  }
  keepInTab("asked", "");
  if (entry) show(entry);
  else if (Number.isInteger(number) && number >= 1) emit("photo", { number });
});
