// The words of the chosen caption, and for each the other words that might stand in its place.

// Shows the attention of the word with this index, or the photo alone if it is -1.
const showWord = (word) => {
  current = word;
  const canvas = find(".stage canvas");
  canvas.hidden = word < 0;
  const shownMap = word < 0 ? null : mapOf(caption(), word);
  if (shownMap) drawAttention(canvas, shownMap);
  drawScale(shownMap);
  find(".stage img").alt =
    word < 0 ? "The photo" : `The photo, lit where the model looked for "${caption().words[word]}"`;
  findAll(".words button").forEach((chip, i) => {
    chip.setAttribute("aria-pressed", i === word);
    chip.tabIndex = i === Math.max(word, 0) ? 0 : -1; // one tab stop, then the arrow keys
  });
  findAll(".tiles figure").forEach((tile, i) => {
    tile.classList.toggle("current", i === word + 1);
  });
};

// Shows a word that the visitor has chosen, and stops the film.
const selectWord = (word) => {
  stop();
  touched = true;
  showWord(word);
};

const makeChip = (word, i) => {
  const logProb = caption().log_probs[i];
  const chip = make("button", { type: "button", textContent: word });
  chip.title = `The model gave this word a probability of ${percent(logProb)}.`;
  chip.ariaLabel = `${word}, ${percent(logProb)}`;
  chip.ariaHasPopup = "true";
  chip.ariaExpanded = "false";
  chip.style.setProperty("--probability", Math.exp(logProb));
  // Not pointerenter, because that event comes as well when chips appear under a pointer at rest.
  for (const event of ["focus", "pointermove"]) {
    chip.addEventListener(event, () => chip.getAttribute("aria-pressed") === "true" || selectWord(i));
  }
  // A finger's first tap shows where the model looked, and its second tap opens the list.
  let wasShown = true;
  chip.addEventListener("pointerdown", ({ pointerType }) => {
    wasShown = pointerType !== "touch" || current === i;
  });
  chip.addEventListener("click", (event) => {
    const open = chip.ariaExpanded === "true";
    selectWord(i);
    if (!wasShown || open) return closeOthers();
    openOthers(chip, i);
    // A click with detail 0 comes from the keyboard, whose focus then moves into the list.
    if (event.detail === 0) find(".others button")?.focus();
  });
  return chip;
};

// Whether another word was nearly as probable as the word that was chosen.
const isNear = (other, logProb) => Math.exp(other) >= 0.1 || other >= logProb - Math.log(4);

// Opens the list of words that the model might have chosen instead. Choosing one of them completes
// the caption from there.
const openOthers = (chip, i) => {
  closeOthers();
  const { words, alternatives, log_probs: logProbs } = caption();
  const list = find(".others");
  const makeOther = ({ word, log_prob: logProb }) => {
    const share = make("small", { textContent: percent(logProb) });
    const name = make("span", { textContent: word, dir: "auto" });
    const button = make("button", { type: "button" }, name, share);
    button.style.setProperty("--share", `${100 * Math.exp(logProb)}%`);
    button.addEventListener("click", () => {
      ask({ kind: "completion", prefix: [...words.slice(0, i), word].join(" "), word: i });
    });
    return button;
  };
  const near = alternatives[i].filter((other) => isNear(other.log_prob, logProbs[i]));
  const far = alternatives[i].slice(near.length);
  const parts = [];
  if (near.length) {
    const title = `Instead of “${words[i]}”, the model nearly said`;
    parts.push(make("p", { textContent: title }), ...near.map(makeOther));
  }
  if (far.length) {
    const title = near.length ? "Far less likely" : `Far less likely than “${words[i]}”`;
    parts.push(make("p", { textContent: title }), ...far.map(makeOther));
  }
  list.replaceChildren(...parts);
  list.ariaLabel = `Other words instead of “${words[i]}”`;
  list.hidden = false;
  chip.ariaExpanded = "true";
  // The list stands below all words, so that it hides none of them.
  const frame = find(".reader").getBoundingClientRect();
  const furthest = Math.max(0, frame.width - list.offsetWidth);
  list.style.left = `${Math.min(chip.getBoundingClientRect().left - frame.left, furthest)}px`;
  list.scrollIntoView({ block: "nearest" });
};

// Closes the list, and returns the button of the word that it belonged to, if any.
const closeOthers = () => {
  find(".others").hidden = true;
  const chip = find('.words [aria-expanded="true"]');
  if (chip) chip.ariaExpanded = "false";
  return chip;
};

find(".words").addEventListener(
  "keydown",
  moveWithin(find(".words"), "button", ["ArrowLeft", "ArrowRight"]),
);
find(".others").addEventListener(
  "keydown",
  moveWithin(find(".others"), "button", ["ArrowUp", "ArrowDown"]),
);
find(".reader").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find(".others").hidden) closeOthers()?.focus();
});
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".others, .words")) closeOthers();
});
