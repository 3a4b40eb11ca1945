// The buttons that copy and download, and the caption that the visitor begins.
const copyText = async (text, button, place) => {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied.");
  } catch {
    // The page has no HTTPS, or the visitor has forbidden it.
    const refused = "Your browser does not let the page copy.";
    if (!place) return say("photo", `${refused} This is the text: ${text}`);
    getSelection().selectAllChildren(place);
    button.textContent = "Press Ctrl+C";
    announce(`${refused} The text is selected: press Ctrl+C.`);
  }
  setTimeout(() => (button.textContent = before), 2000);
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

// Asks the server for a file of this form, which is then downloaded.
const requestFile = (form) => {
  const { words, log_probs: logProbs, attention } = caption();
  const one = { words, log_probs: logProbs, attention };
  const all = form === "all" ? { name: shown.name, captions: captionsAsJson() } : {};
  // The photo is sent as well, because the server may have forgotten it.
  trigger("take", { form, key: shown.key, photo: shown.photo, caption: one, ...all });
};

find(".alt").addEventListener("click", ({ target }) => {
  copyText(`<img src="${escaped(shown.name)}" alt="${escaped(caption().text)}">`, target);
});
find(".picture").addEventListener("click", () => requestFile("grid"));
find(".gif").addEventListener("click", () => requestFile("film"));
find(".html").addEventListener("click", () => requestFile("html"));
find(".json").addEventListener("click", saveJson);
find(".all").addEventListener("click", () => requestFile("all"));
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
