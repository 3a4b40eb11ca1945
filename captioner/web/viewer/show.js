const show = () => {
  const value = props.value;
  if (value && value.answer === answer) return;
  answer = value?.answer;
  const empty = !value || !value.captions;
  find(".empty").hidden = !empty;
  find(".result").hidden = empty;
  if (empty) return stop();
  const image = find(".stage img");
  const same = image.src === value.photo;
  // While more captions come in, what the visitor is looking at stays: also a list that is open.
  const kept = same && touched ? caption()?.text : null;
  const asBefore = JSON.stringify(value.region) === JSON.stringify(shownRegion);
  shownRegion = value.region;
  if (!same) open(value.photo);
  find(".result").dataset.example = value.example ?? "";
  captions = JSON.parse(value.captions);
  find(".captions").replaceChildren(...makeGroups());
  drawRegion(value.region);
  const own = value.word !== undefined;
  const index = captions.findIndex((c) => c.text === kept);
  if (!own && index >= 0 && asBefore) mark(index);
  else choose(own ? 0 : Math.max(0, index));
  if (own) find(`.words button:nth-child(${value.word + 1})`)?.focus({ preventScroll: true });
  // What it all is about, at first sight: the film starts by itself, until the visitor does
  // anything.
  touched = same && touched;
  if (value.done) rest();
  if (!touched && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
};

const open = async (photo) => {
  const image = find(".stage img");
  image.src = photo;
  await image.decode();
  stage.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  // On a phone the captions are below the controls: do not leave the visitor waiting up there.
  const { top } = element.getBoundingClientRect();
  if (top > innerHeight * 0.6) element.scrollIntoView({ behavior: "smooth" });
};
