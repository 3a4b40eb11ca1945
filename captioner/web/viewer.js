// The body of gr.HTML's js_on_load: `element`, `props`, `trigger` and `watch` come from Gradio.
// props.value is null or {photo: data URL, region: null or [left, top, right, bottom], example,
// word, answer: its name, done: false if more comes, captions: [{text, words, log_probs, attention,
// alternatives, source}]}.
const find = (selector) => element.querySelector(selector);
const SECONDS_PER_WORD = 0.8;
let captions = []; // those of props.value
let chosen = 0; // of the captions
let film = null; // the running timer
let answer; // the name of the value that is shown
let shownRegion = null; // that of this value
let waiting = null; // the arguments of an `ask` that came while the server was at work
let touched = false; // the visitor has chosen a caption or a word of what is shown

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

const caption = () => captions[chosen];

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
  touched = true;
  showWord(word);
};

// Asks the server; while it is at work, only the last wish is remembered.
const ask = (...wish) => {
  closeOthers();
  if (find(".result").ariaBusy === "true") return (waiting = wish);
  find(".result").ariaBusy = "true";
  trigger(...wish);
};

const rest = () => {
  find(".result").ariaBusy = "false";
  const wish = waiting;
  waiting = null;
  if (wish) ask(...wish);
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

// The region, in fractions of the photo: dragged, tapped, or moved with the arrow keys.
const stage = find(".stage");
const clamp = (x) => Math.min(1, Math.max(0, x));
let draft = null; // the region that is being chosen
let origin = null; // where the pointer went down

const drawRegion = (region) => {
  draft = region;
  const box = find(".region");
  box.hidden = !region;
  find(".whole").hidden = !props.value.region;
  if (!region) return;
  const [left, top, right, bottom] = region.map((x) => 100 * x);
  box.style.inset = `${top}% ${100 - right}% ${100 - bottom}% ${left}%`;
};

const around = (x, y, width, height) => {
  const left = clamp(Math.min(x - width / 2, 1 - width));
  const top = clamp(Math.min(y - height / 2, 1 - height));
  return [left, top, left + width, top + height].map((v) => Math.round(1e4 * clamp(v)) / 1e4);
};

const steer = (region) => {
  touched = false;
  ask("steer", { region });
};

const whereIn = (event) => {
  const { left, top, width, height } = stage.getBoundingClientRect();
  return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
};

const dragTo = (event) => {
  const [x, y] = whereIn(event);
  const [[left, right], [top, bottom]] = [[x, origin[0]], [y, origin[1]]].map((v) =>
    v.sort((a, b) => a - b),
  );
  return around((left + right) / 2, (top + bottom) / 2, right - left, bottom - top);
};

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || event.target.closest("button")) return;
  origin = whereIn(event);
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!origin) return;
  look(-1);
  drawRegion(dragTo(event));
});
stage.addEventListener("pointerup", (event) => {
  if (!origin) return;
  const [left, top, right, bottom] = dragTo(event);
  const isDrag = right - left > 0.04 && bottom - top > 0.04;
  const region = isDrag ? [left, top, right, bottom] : around(...origin, 0.3, 0.3);
  origin = null;
  drawRegion(region);
  steer(region);
});
stage.addEventListener("pointercancel", () => {
  origin = null; // the finger scrolls the page
  drawRegion(props.value.region);
});
stage.addEventListener("keydown", (event) => {
  if (event.target !== stage) return;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const [dx, dy] = arrows[event.key] ?? [];
  if (event.key === "Enter" && draft) steer(draft);
  else if (event.key === "Escape" && draft) props.value.region ? steer(null) : drawRegion(null);
  else if (dx !== undefined) {
    let [x, y, width, height] = [0.5, 0.5, 0.4, 0.4];
    if (draft) {
      const [left, top, right, bottom] = draft;
      [x, y, width, height] = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top];
      if (event.shiftKey) {
        width = Math.min(1, Math.max(0.1, width + 0.1 * dx));
        height = Math.min(1, Math.max(0.1, height + 0.1 * dy));
      } else [x, y] = [x + 0.05 * dx, y + 0.05 * dy];
    }
    look(-1);
    drawRegion(around(x, y, width, height));
  } else return;
  event.preventDefault();
});
find(".whole").addEventListener("click", () => {
  stage.focus({ preventScroll: true });
  steer(null);
});

const saveJson = () => {
  const text = JSON.stringify({ captions }, null, 1);
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href, download: "captions.json" }).click();
  URL.revokeObjectURL(href);
};

const moveWithin = (list, keys) => (event) => {
  const buttons = [...find(list).querySelectorAll("button")];
  const current = buttons.indexOf(document.activeElement);
  const next = { [keys[0]]: current - 1, [keys[1]]: current + 1, Home: 0, End: buttons.length - 1 };
  const button = buttons[next[event.key]];
  if (!button) return;
  event.preventDefault();
  button.focus();
};
find(".words").addEventListener("keydown", moveWithin(".words", ["ArrowLeft", "ArrowRight"]));
find(".others").addEventListener("keydown", moveWithin(".others", ["ArrowUp", "ArrowDown"]));
find(".reader").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find(".others").hidden) closeOthers()?.focus();
});
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".others, .words")) closeOthers();
});
find(".begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const prefix = find(".begin input").value.trim();
  if (prefix) ask("complete", { prefix, word: prefix.split(/\s+/).length - 1 });
});
find(".play").addEventListener("click", () => {
  touched = true;
  play();
});
find(".json").addEventListener("click", saveJson);
find(".picture").addEventListener("click", () => trigger("take", { index: chosen, kind: "grid" }));
find(".gif").addEventListener("click", () => trigger("take", { index: chosen, kind: "film" }));
find(".result").addEventListener("failed", rest);
watch("value", show);
show();
