// Changes the page according to the server's answers.
const isNewPhoto = (request) => request.kind === "photo" || request.kind === "example";

// The photo's width divided by its height, limited to 1/most..most, because a longer photo would be
// shown as a line.
const proportion = (most) => Math.min(most, Math.max(1 / most, shown.size[0] / shown.size[1]));

const showPhoto = (photo) => {
  shown = photo;
  captions = [];
  touched = false;
  find(".result").dataset.example = photo.example ?? "";
  // The proportions are set before the picture, so that nothing moves when it has been decoded.
  stage.style.setProperty("--ratio", proportion(5));
  find(".squeezed").hidden = proportion(5) === proportion(Infinity);
  find(".stage img").src = photo.photo;
  find(".empty").hidden = true;
  find(".result").hidden = false;
  find(".begin input").value = "";
  forgetFeedback();
  say("words", "");
  const { top } = element.getBoundingClientRect();
  if (top > innerHeight * 0.5 || top < -innerHeight * 0.5) element.scrollIntoView();
};

// The captions that the visitor has begun.
const ownCaptions = () => captions.filter((c) => c.source === "yours");

// Adds a caption that the visitor has begun above the others.
const addOwn = (found, word) => {
  const others = captions.filter((c) => c.source !== "yours");
  const earlier = ownCaptions().filter((c) => c.text !== found.text);
  captions = [found, ...earlier].slice(0, MOST_OWN).concat(others);
  showList(groupsOf(others), true);
  choose(0);
  find(`.words button:nth-child(${word + 1})`)?.focus({ preventScroll: true });
  announce(`Your caption: ${found.text}`);
};

// Shows the seed, and offers new samples if some of the captions are samples.
const showSeed = (found) => {
  find(".again").hidden = !found.some(({ source }) => source === "sample");
  find(".seed").textContent = shown.options ? `seed ${shown.options[4]}` : "";
};

// Shows the captions of a search. Further captions are added without changing those that are there.
const addFound = (request, { captions: found, sources, options, done }) => {
  const kept = ownCaptions();
  const before = request.begun ? caption() : null;
  captions = [...kept, ...found];
  shown.options = options;
  shown.region = request.region ?? null;
  showList(groupsOf(sources), !request.begun);
  if (before) markChosen(chosen);
  else choose(kept.length);
  request.begun = true;
  showSeed(sources);
  if (done) announce(`${found.length} captions. The first: ${found[0].text}`);
};

const accept = (request, answer) => {
  if (answer.photo && !request.begun) {
    const { photo, size, example } = answer;
    const name = request.file?.name ?? `example-${example}`;
    showPhoto({ id: crypto.randomUUID?.() ?? `${Date.now()}`, name, photo, size, example });
    say("photo", "");
  }
  shown.key = answer.key;
  if (request.kind === "completion") {
    addOwn(answer.captions[0], request.word);
    find(".begin input").value = "";
    say("words", "");
  } else {
    touched = request.begun && touched;
    const first = !request.begun;
    addFound(request, answer);
    say("options", "");
    // The film starts by itself, so that visitors see at once what the page does. It stops when they
    // do anything.
    if (first && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  }
  if (answer.done) emit("shown", { ...shown, captions });
};

// Shows an entry of the history again.
const restore = (entry) => {
  const { captions: kept, ...photo } = entry;
  showPhoto({ ...photo, key: null });
  // After a reload, the controls are set later, and perhaps to these values.
  if (!controls) answeredOptions = JSON.stringify(photo.options);
  captions = kept;
  // The visitor's own captions come first, in whatever order the history has kept them.
  captions.sort((a, b) => (b.source === "yours") - (a.source === "yours"));
  showList(groupsOf(captions).filter((group) => group !== "yours"), true);
  choose(ownCaptions().length < captions.length ? ownCaptions().length : 0);
  showSeed(captions);
  announce(`${shown.name} again, with ${captions.length} captions.`);
};

// Shows a message about the photo, the options or the words. It stays until these have changed.
const say = (about, text) => {
  const place = find(about === "words" ? ".unknown" : ".refused");
  // For example, a message about the photo stays when the options become valid.
  if (!text && place.dataset.about !== about) return;
  place.dataset.about = about;
  place.hidden = !text;
  place.querySelector("span").textContent = text;
  if (text) place.scrollIntoView?.({ block: "nearest" });
};

const refuse = (request, { message, about }) => {
  const kind = about === "This option" ? "options" : isNewPhoto(request) ? "photo" : "options";
  say(request.kind === "completion" ? "words" : kind, message);
  drawRegion(caption()?.region ?? null);
};
