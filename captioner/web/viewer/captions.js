// The list of captions, and the attention maps of the chosen one as tiles.
const HEADINGS = { yours: "Yours", sample: "Samples", greedy: "Greedy", beam: "Beam" };
// Captions of one search by one model form a group. The visitor's own captions form one group, by
// whatever model.
const groupOf = ({ source, model }) => (source === "yours" || !model ? source : `${source}\n${model}`);
const headingOf = (group) => {
  const [source, model] = group.split("\n");
  const heading = HEADINGS[source] ?? source;
  return model ? `${model}: ${heading}` : heading;
};
const groupsOf = (found) => [...new Set(found.map(groupOf))];

const makeTile = (title, i) => {
  const picture = make("div", {}, make("img", { src: shown.photo }));
  picture.style.setProperty("--ratio", proportion(3));
  picture.firstChild.alt = i < 0 ? "The photo" : `Where the model looked for "${title}"`;
  const heading = make("figcaption", { textContent: title, dir: "auto" });
  if (i >= 0) {
    picture.append(make("canvas", { ariaHidden: "true" }));
    drawAttention(picture.lastChild, mapOf(caption(), i), 16);
    heading.append(" ", make("small", { textContent: percent(caption().log_probs[i]) }));
  }
  const tile = make("figure", {}, heading, picture);
  tile.addEventListener("click", () => selectWord(i));
  return tile;
};

// Marks a caption in the list as the chosen one.
const markChosen = (index) => {
  chosen = index;
  const radios = findAll(".captions [role=radio]");
  radios.forEach((radio) => {
    const isChosen = Number(radio.dataset.index) === index;
    radio.ariaChecked = isChosen;
    radio.tabIndex = isChosen ? 0 : -1;
    radio.closest(".choice").classList.toggle("chosen", isChosen);
  });
};

// Shows the words and the attention of a caption.
const choose = (index) => {
  stop();
  closeOthers();
  markChosen(index);
  const { words, region, note, attention: [attention] } = caption();
  find(".words").replaceChildren(...words.map(makeChip));
  find(".tiles").replaceChildren(makeTile("photo", -1), ...words.map(makeTile));
  find(".unsure").textContent = note ?? "";
  find(".unsure").hidden = !note;
  if (words.length) find(".cells").textContent = `${attention.length} × ${attention[0].length}`;
  drawRegion(region);
  showWord(-1);
};

// Equal samples are shown as one choice, which says how many there are.
const makeChoice = (choice, index) => {
  const { text, source, model, log_probs: logProbs } = choice;
  const alike = captions.filter((c) => groupOf(c) === groupOf(choice) && c.text === text);
  if (alike[0] !== captions[index]) return [];
  const mean = logProbs.reduce((sum, p) => sum + p, 0) / Math.max(logProbs.length, 1);
  const times = alike.length > 1 ? `, drawn ${alike.length} times` : "";
  const by = source === "yours" && model ? `, by ${model}` : "";
  const note = make("small", { textContent: `${percent(mean)} per word${times}${by}` });
  note.title = "The mean probability of its words (their geometric mean).";
  const radio = make("div", {}, make("span", { textContent: text, dir: "auto" }), note);
  radio.setAttribute("role", "radio");
  radio.dataset.index = index;
  // A click that ends a selection of text does not choose a caption.
  radio.addEventListener("click", () => getSelection().isCollapsed && chooseByHand(index));
  radio.addEventListener("focus", () => radio.matches(":focus-visible") && chooseByHand(index));
  const copy = make("button", { type: "button", className: "copy", textContent: "Copy" });
  copy.ariaLabel = `Copy “${text}”`;
  copy.addEventListener("click", () => copyText(text, copy, radio.firstChild));
  return [make("div", { className: "choice" }, radio, copy)];
};

// The visitor chooses a caption.
const chooseByHand = (index) => {
  touched = true;
  if (index !== chosen) choose(index);
};

// Shows one list of captions, or several lists under headings, side by side. The visitor's own
// captions are above them. Lists that are shown already are kept, because the visitor may be reading
// them, unless `fresh` is true.
const showList = (planned, fresh) => {
  const list = find(".captions");
  const groups = ownCaptions().length ? ["yours", ...planned] : planned;
  // The lists of two models are side by side. With several strategies, those are side by side, and the
  // models are one below the other.
  const strategies = new Set(planned.map((group) => group.split("\n")[0])).size;
  list.style.setProperty("--groups", strategies > 1 ? strategies : planned.length);
  if (fresh) list.replaceChildren();
  groups.forEach((group, i) => {
    const made = list.children[i] ?? list.appendChild(make("section", {}));
    if (made.querySelector(".choice")) return;
    const heading = make("h3", { textContent: headingOf(group) });
    made.className = group === "yours" ? "wide" : "";
    const choices = captions.flatMap((c, index) => (groupOf(c) === group ? makeChoice(c, index) : []));
    const pending = make("p", { className: "pending", textContent: "…" });
    made.replaceChildren(
      ...(groups.length > 1 ? [heading] : []),
      ...(choices.length ? choices : [pending]),
    );
  });
};

find(".captions").addEventListener(
  "keydown",
  moveWithin(find(".captions"), "[role=radio]", ["ArrowUp", "ArrowDown"]),
);
