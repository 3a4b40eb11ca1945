// The buttons that copy and download, and the caption that the visitor begins.
// Shows a text on a button for two seconds.
const flash = (button, text) => {
  button.dataset.label ??= button.textContent; // what it says otherwise
  clearTimeout(button.flashing);
  button.textContent = text;
  button.flashing = setTimeout(() => (button.textContent = button.dataset.label), 2000);
};

const copyText = async (text, button, place) => {
  try {
    await navigator.clipboard.writeText(text);
    flash(button, "Copied");
    announce("Copied.");
  } catch {
    // The page has no HTTPS, or the visitor has forbidden it.
    const refused = "Your browser does not let the page copy.";
    if (!place) return say("photo", `${refused} This is the text: ${text}`);
    getSelection().selectAllChildren(place);
    flash(button, "Press Ctrl+C");
    announce(`${refused} The text is selected: press Ctrl+C.`);
  }
};

const escaped = (text) =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

// All captions on the page as JSON, with the model and the options that reproduce them.
const captionsAsJson = () => {
  const { name, region } = shown;
  const options = Object.fromEntries(OPTIONS.map((option, i) => [option, shown.options?.[i]]));
  return JSON.stringify({ photo: name, models: props.models, options, region, captions }, null, 1);
};

const saveJson = () => {
  const href = URL.createObjectURL(new Blob([captionsAsJson()], { type: "application/json" }));
  make("a", { href, download: "captions.json" }).click();
  URL.revokeObjectURL(href);
};

// The files that the server shall make, {button, request}. It makes the first one now, and each is
// downloaded when it is there.
let files = [];
const requestFile = (form) => ({ target: button }) => {
  if (files.some((file) => file.button === button)) return; // the second click of a double click
  const { words, log_probs: logProbs, attention } = caption();
  const one = { words, log_probs: logProbs, attention };
  const all = form === "all" ? { name: shown.name, captions: captionsAsJson() } : {};
  // The photo is sent as well, because the server may have forgotten it.
  const request = { form, key: shown.key, photo: shown.photo, caption: one, ...all };
  button.ariaBusy = "true";
  if (files.push({ button, request }) === 1) trigger("take", request);
};
listen("taken", () => {
  const [made, next] = files;
  files = files.slice(1);
  if (made) made.button.ariaBusy = "false";
  if (next) trigger("take", next.request);
});

find(".alt").addEventListener("click", ({ target }) => {
  copyText(`<img src="${escaped(shown.name)}" alt="${escaped(caption().text)}">`, target);
});
find(".picture").addEventListener("click", requestFile("grid"));
find(".gif").addEventListener("click", requestFile("film"));
find(".html").addEventListener("click", requestFile("html"));
find(".json").addEventListener("click", saveJson);
find(".all").addEventListener("click", requestFile("all"));
find(".again").addEventListener("click", () => trigger("reseed"));
find(".empty").addEventListener("click", () => emit("choose"));
find(".another").addEventListener("click", () => emit("choose"));
findAll(".message .close").forEach((button) => {
  button.addEventListener("click", () => (button.parentElement.hidden = true));
});
find(".begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const prefix = find(".begin input").value.trim();
  if (prefix) ask({ kind: "completion", prefix, word: prefix.split(/\s+/).length - 1 });
});
find(".begin input").addEventListener("input", () => say("words", ""));
redraw();
receive();
