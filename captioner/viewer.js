// The body of gr.HTML's js_on_load: `element`, `props`, `trigger` and `watch` come from Gradio.
// props.value is null or {photo: data URL, captions: [{text, words, log_probs, attention}]}.
const find = (selector) => element.querySelector(selector);
const SECONDS_PER_WORD = 0.8;
let chosen = 0; // of the captions
let film = null; // the running timer

const make = (tag, attributes, ...children) => {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
};

const percent = (logProb) => {
  const p = 100 * Math.exp(logProb);
  return p < 1 ? "<1%" : `${p.toFixed(0)}%`;
};

// The rendering of overlay.draw_attention, as a transparent layer: a mix of the two layers in
// proportion to the map. It is linear in the map, so the small map can be drawn and then scaled.
const drawAttention = (canvas, attention) => {
  const [rows, columns] = [attention.length, attention[0].length];
  const largest = Math.max(...attention.flat()) || 1;
  const [warm, warmth] = props.attended;
  const [cold, coldness] = props.unattended;
  const small = make("canvas", { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  attention.flat().forEach((value, i) => {
    const w = value / largest;
    const opacity = w * warmth + (1 - w) * coldness;
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = (w * warmth * warm[c] + (1 - w) * coldness * cold[c]) / opacity;
    }
    pixels.data[4 * i + 3] = 255 * opacity;
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [columns * 32, rows * 32];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
};

const caption = () => props.value.captions[chosen];

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

const stop = () => {
  clearInterval(film);
  film = null;
  find(".play").textContent = "▶ Play";
};

const play = () => {
  if (film || caption().words.length === 0) return stop();
  let word = 0;
  showWord(word);
  find(".play").textContent = "■ Stop";
  film = setInterval(() => {
    word += 1;
    if (word < caption().words.length) return showWord(word);
    stop();
    showWord(-1);
  }, 1000 * SECONDS_PER_WORD);
};

const look = (word) => {
  stop();
  showWord(word);
};

const makeChip = (word, i) => {
  const logProb = caption().log_probs[i];
  const chip = make("button", { type: "button", textContent: word });
  chip.ariaLabel = `${word}, ${percent(logProb)}`;
  chip.style.setProperty("--probability", Math.exp(logProb));
  for (const event of ["click", "focus", "pointerenter"]) {
    chip.addEventListener(event, () => look(i));
  }
  return chip;
};

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

const choose = (index) => {
  stop();
  chosen = index;
  const { words, log_probs: logProbs, attention } = caption();
  element.querySelectorAll(".captions button").forEach((button, i) => {
    button.setAttribute("aria-pressed", i === index);
  });
  find(".words").replaceChildren(...words.map(makeChip));
  find(".tiles").replaceChildren(
    makeTile("photo", 0, null, -1),
    ...words.map((word, i) => makeTile(word, logProbs[i], attention[i], i)),
  );
  showWord(-1);
};

const makeChoice = ({ text, log_probs: logProbs }, i) => {
  const mean = logProbs.reduce((sum, p) => sum + p, 0) / Math.max(logProbs.length, 1);
  const note = make("small", { textContent: `${percent(mean)} a word` });
  const button = make("button", { type: "button" }, make("span", { textContent: text }), note);
  button.addEventListener("click", () => choose(i));
  return button;
};

const show = () => {
  stop();
  const value = props.value;
  const empty = !value || !value.captions;
  find(".empty").hidden = !empty;
  find(".result").hidden = empty;
  if (empty) return;
  find(".stage img").src = value.photo;
  find(".captions").replaceChildren(...value.captions.map(makeChoice));
  choose(0);
  // On a phone the captions are below the controls: do not leave the visitor waiting up there.
  const { top } = element.getBoundingClientRect();
  if (top > innerHeight) element.scrollIntoView({ behavior: "smooth" });
};

const saveJson = () => {
  const text = JSON.stringify({ captions: props.value.captions }, null, 1);
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href, download: "captions.json" }).click();
  URL.revokeObjectURL(href);
};

find(".words").addEventListener("keydown", (event) => {
  const chips = [...element.querySelectorAll(".words button")];
  const current = chips.indexOf(document.activeElement);
  const next = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: chips.length - 1 };
  const chip = chips[next[event.key]];
  if (!chip) return;
  event.preventDefault();
  chip.focus();
});
find(".play").addEventListener("click", play);
find(".json").addEventListener("click", saveJson);
find(".picture").addEventListener("click", () => trigger("download", { index: chosen }));
watch("value", show);
show();
