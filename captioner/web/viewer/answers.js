// What an answer changes on the page.
const isNewPhoto = (wish) => wish.kind === "photo" || wish.kind === "example";

// Width by height, but neither more than `most` times the other: of what is longer, one would see a
// line.
const proportion = (most) => Math.min(most, Math.max(1 / most, shown.size[0] / shown.size[1]));

const showPhoto = (photo) => {
  shown = photo;
  captions = [];
  touched = false;
  find(".result").dataset.example = photo.example ?? "";
  // The proportions before the picture: nothing moves when it has been decoded.
  stage.style.setProperty("--ratio", proportion(5));
  find(".squeezed").hidden = proportion(5) === proportion(Infinity);
  find(".stage img").src = photo.photo;
  find(".empty").hidden = true;
  find(".result").hidden = false;
  find(".begin input").value = "";
  say("words", "");
  const { top } = element.getBoundingClientRect();
  if (top > innerHeight * 0.5 || top < -innerHeight * 0.5) element.scrollIntoView();
};

const own = () => captions.filter((c) => c.source === "yours");

// One more caption of the visitor's, above the others.
const addOwn = (found, word) => {
  const others = captions.filter((c) => c.source !== "yours");
  const earlier = own().filter((c) => c.text !== found.text);
  captions = [found, ...earlier].slice(0, MOST_OWN).concat(others);
  showList([...new Set(others.map((c) => c.source))], true);
  choose(0);
  find(`.words button:nth-child(${word + 1})`)?.focus({ preventScroll: true });
  announce(`Your caption: ${found.text}`);
};

// The captions of a search. What came first stays as it is while others join it.
const addFound = (wish, { captions: found, sources, options, done }) => {
  const kept = own();
  const before = wish.begun ? caption() : null;
  captions = [...kept, ...found];
  shown.options = options;
  shown.region = wish.region ?? null;
  showList(sources, !wish.begun);
  if (before) mark(chosen);
  else choose(kept.length);
  wish.begun = true;
  find(".again").hidden = !sources.includes("sample");
  find(".seed").textContent = `seed ${options[4]}`;
  if (done) announce(`${found.length} captions. The first: ${found[0].text}`);
};

const accept = (wish, answer) => {
  if (answer.photo && !wish.begun) {
    const { photo, size, example } = answer;
    const name = wish.file?.name ?? `example-${example}`;
    showPhoto({ id: crypto.randomUUID?.() ?? `${Date.now()}`, name, photo, size, example });
    say("photo", "");
  }
  shown.key = answer.key;
  if (wish.kind === "completion") {
    addOwn(answer.captions[0], wish.word);
    find(".begin input").value = "";
    say("words", "");
  } else {
    touched = wish.begun && touched;
    const first = !wish.begun;
    addFound(wish, answer);
    say("options", "");
    // What it all is about, at first sight: the film starts by itself, until the visitor does
    // anything.
    if (first && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  }
  if (answer.done) tell("shown", { ...shown, captions });
};

// An entry of the history, as it was.
const restore = (entry) => {
  const { captions: kept, ...photo } = entry;
  showPhoto({ ...photo, key: null });
  captions = kept;
  // Own ones come first, whatever the order in which the history has kept them.
  captions.sort((a, b) => (b.source === "yours") - (a.source === "yours"));
  const sources = [...new Set(captions.map((c) => c.source))].filter((s) => s !== "yours");
  showList(sources, true);
  choose(own().length < captions.length ? own().length : 0);
  find(".again").hidden = !sources.includes("sample");
  find(".seed").textContent = shown.options ? `seed ${shown.options[4]}` : "";
  announce(`${shown.name} again, with ${captions.length} captions.`);
};

// A message stands until what it speaks of has changed: the photo, the options, or the words.
const say = (about, text) => {
  const place = find(about === "words" ? ".unknown" : ".refused");
  // What was said of a photo is not over because the options are right.
  if (!text && place.dataset.about !== about) return;
  place.dataset.about = about;
  place.hidden = !text;
  place.querySelector("span").textContent = text;
  if (text) place.scrollIntoView?.({ block: "nearest" });
};

const refuse = (wish, { message, about }) => {
  const kind = about === "This option" ? "options" : isNewPhoto(wish) ? "photo" : "options";
  say(wish.kind === "completion" ? "words" : kind, message);
  drawRegion(caption()?.region ?? null);
};
