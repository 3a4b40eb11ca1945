const makeTile = (title, logProb, attention, i) => {
  const picture = make("div", {}, make("img", { src: props.value.photo }));
  picture.firstChild.alt = attention ? `Where the model looked for "${title}"` : "The photo";
  if (attention) {
    picture.append(make("canvas", { ariaHidden: "true" }));
    drawAttention(picture.lastChild, attention);
  }
  const heading = make("figcaption", { textContent: title });
  if (attention) heading.append(" ", make("small", { textContent: percent(logProb) }));
  const tile = make("figure", {}, heading, picture);
  tile.addEventListener("click", () => look(i));
  return tile;
};

const mark = (index) => {
  chosen = index;
  element.querySelectorAll(".captions button").forEach((button) => {
    button.setAttribute("aria-pressed", Number(button.value) === index);
  });
};

const choose = (index) => {
  stop();
  closeOthers();
  mark(index);
  const { words, log_probs: logProbs, attention } = caption();
  find(".words").replaceChildren(...words.map(makeChip));
  find(".tiles").replaceChildren(
    makeTile("photo", 0, null, -1),
    ...words.map((word, i) => makeTile(word, logProbs[i], attention[i], i)),
  );
  showWord(-1);
};

// Several samples may say the same: they are one choice, which says how many they are.
const makeChoice = ({ text, source, log_probs: logProbs }, i) => {
  const alike = captions.filter((c) => c.source === source && c.text === text);
  if (alike[0] !== captions[i]) return [];
  const mean = logProbs.reduce((sum, p) => sum + p, 0) / Math.max(logProbs.length, 1);
  const times = alike.length > 1 ? `, drawn ${alike.length} times` : "";
  const note = make("small", { textContent: `${percent(mean)} a word${times}` });
  const words = make("span", { textContent: text });
  const button = make("button", { type: "button", value: i }, words, note);
  button.addEventListener("click", () => {
    choose(i);
    touched = true;
  });
  return [button];
};

// One list, or several under headings: side by side, but the visitor's own above them.
const makeGroups = () => {
  const headings = { yours: "Yours", sample: "Samples", greedy: "Greedy", beam: "Beam" };
  const sources = [...new Set(captions.map((c) => c.source))];
  const others = sources.filter((source) => source !== "yours").length;
  find(".captions").style.setProperty("--groups", Math.max(others, 1));
  return sources.map((source) => {
    const group = make("section", { className: source === "yours" ? "wide" : "" });
    if (sources.length > 1) group.append(make("h3", { textContent: headings[source] }));
    captions.forEach((c, i) => c.source === source && group.append(...makeChoice(c, i)));
    return group;
  });
};
