// The photos and captions of this browser, the last ones first. They are in the browser's own memory,
// which holds a few megabytes; attention is kept with 256 levels. Gradio's BrowserState would write
// them some time later, when the page may have been closed, and one page over what another has kept.
const PLACE = "captioner-history"; // in localStorage
const MOST_PHOTOS = 12;
const MOST_CAPTIONS = 12; // of one photo
const MOST_CHARACTERS = 900_000; // of all
const LONGEST_SIDE = 400; // pixels of a photo that is kept
let entries = []; // as they are listed

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
  const { naturalWidth, naturalHeight } = image;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(naturalWidth, naturalHeight));
  const [width, height] = [naturalWidth, naturalHeight].map((v) => Math.max(1, Math.round(v * scale)));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return canvas.toDataURL("image/jpeg", 0.75);
};

// Other pages of this browser may have written since.
const read = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE));
    return Array.isArray(kept) ? kept : [];
  } catch {
    return entries; // the visitor has forbidden it, or somebody else has written there
  }
};

const save = (kept) => {
  entries = kept.slice(0, MOST_PHOTOS);
  while (entries.length > 1 && JSON.stringify(entries).length > MOST_CHARACTERS) entries.pop();
  try {
    localStorage.setItem(PLACE, JSON.stringify(entries));
  } catch {
    // Forbidden or full: the list lasts as long as this page.
  }
  list();
};

const list = () => {
  find(".past").hidden = entries.length === 0;
  find(".entries").replaceChildren(
    ...entries.map((entry) => {
      const button = make("button", { type: "button", title: entry.captions[0]?.text ?? "" });
      button.append(make("img", { src: entry.photo, alt: "" }));
      button.ariaLabel = `${entry.name}: ${entry.captions[0]?.text ?? ""}`;
      button.addEventListener("click", () => {
        const captions = entry.captions.map((caption) => withMaps(caption, unpack));
        tell("restore", { ...entry, captions });
      });
      return button;
    }),
  );
};

// What is on the page joins what was there of the same photo before.
hear("shown", async ({ captions, photo, key, ...rest }) => {
  const known = () => read().find(({ id }) => id === rest.id);
  const small = known()?.photo ?? (await shrink(photo));
  const before = known(); // it may have come while the photo was made smaller
  const now = captions.map((caption) => withMaps(caption, pack));
  const isNow = (c) => now.some((n) => n.text === c.text && n.source === c.source);
  const earlier = (before?.captions ?? []).filter((c) => !isNow(c));
  const kept = [...now, ...earlier].slice(0, MOST_CAPTIONS);
  const others = read().filter(({ id }) => id !== rest.id);
  save([{ ...rest, photo: small, captions: kept }, ...others]);
});
const refresh = () => {
  entries = read();
  list();
};
addEventListener("storage", refresh); // another page of this browser has written
find(".clear").addEventListener("click", () => save([]));
refresh();
