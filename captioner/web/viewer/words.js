// Shows one word's attention, or the bare photo for a word of -1.
const showWord = (word) => {
  const canvas = find(".stage canvas");
  canvas.hidden = word < 0;
  if (word >= 0) drawAttention(canvas, caption().attention[word]);
  find(".stage img").alt =
    word < 0 ? "The photo" : `The photo, lit where the model looked for "${caption().words[word]}"`;
  element.querySelectorAll(".words button").forEach((chip, i) => {
    chip.setAttribute("aria-pressed", i === word);
    chip.tabIndex = i === Math.max(word, 0) ? 0 : -1; // one tab stop, then the arrow keys
  });
  element.querySelectorAll(".tiles figure").forEach((tile, i) => {
    tile.classList.toggle("current", i === word + 1);
  });
};

const look = (word) => {
  stop();
  touched = true;
  showWord(word);
};

const makeChip = (word, i) => {
  const logProb = caption().log_probs[i];
  const chip = make("button", { type: "button", textContent: word });
  chip.ariaLabel = `${word}, ${percent(logProb)}`;
  chip.ariaHasPopup = "true";
  chip.ariaExpanded = "false";
  chip.style.setProperty("--probability", Math.exp(logProb));
  // Not pointerenter, which comes, too, when new chips appear under a pointer at rest.
  for (const event of ["focus", "pointermove"]) {
    chip.addEventListener(event, () => chip.getAttribute("aria-pressed") === "true" || look(i));
  }
  chip.addEventListener("click", (event) => {
    const open = chip.ariaExpanded === "true";
    look(i);
    if (open) return closeOthers();
    openOthers(chip, i);
    // Without a pointer, the list is where the keyboard goes on.
    if (event.detail === 0) find(".others button")?.focus();
  });
  return chip;
};

// What the model nearly said in place of a word; choosing one completes the caption from there.
const openOthers = (chip, i) => {
  closeOthers();
  const { words, alternatives } = caption();
  const list = find(".others");
  const buttons = alternatives[i].map(({ word, log_prob: logProb }) => {
    const share = make("small", { textContent: percent(logProb) });
    const button = make("button", { type: "button" }, make("span", { textContent: word }), share);
    button.style.setProperty("--share", `${100 * Math.exp(logProb)}%`);
    button.addEventListener("click", () => {
      ask("complete", { prefix: [...words.slice(0, i), word].join(" "), word: i });
    });
    return button;
  });
  const title = `Instead of “${words[i]}” it nearly said`;
  list.replaceChildren(make("p", { textContent: title }), ...buttons);
  list.ariaLabel = title;
  list.hidden = false;
  chip.ariaExpanded = "true";
  const frame = find(".reader").getBoundingClientRect();
  const { left, bottom } = chip.getBoundingClientRect();
  const furthest = Math.max(0, frame.width - list.offsetWidth);
  list.style.left = `${Math.min(left - frame.left, furthest)}px`;
  list.style.top = `${bottom - frame.top + 6}px`;
};

// Gives the word back whose list was open.
const closeOthers = () => {
  find(".others").hidden = true;
  const chip = find('.words [aria-expanded="true"]');
  if (chip) chip.ariaExpanded = "false";
  return chip;
};
