// Draws the attention, either as light on the photo or as a heat map over it.
const view = { style: "spotlight", colours: "inferno", opacity: 0.65, special: false };

// {map, low, high}: the map of a word as it is shown, and its smallest and largest value.
const mapOf = ({ attention }, word) => {
  const map = attention[word];
  if (!view.special) return { map, low: 0, high: Math.max(...map.flat()) };
  // The word's map is divided by the caption's mean. A quarter of the mean cell is added to both,
  // because cells without attention for any word would otherwise have the largest quotients.
  const cells = map.length * map[0].length;
  const added = 0.25 / cells;
  const quotients = map.map((row, y) =>
    row.map((value, x) => {
      const mean = attention.reduce((sum, other) => sum + other[y][x], 0) / attention.length;
      return (value + added) / (mean + added);
    }),
  );
  return { map: quotients, low: Math.min(...quotients.flat()), high: Math.max(...quotients.flat()) };
};

// An ImageData with the map, scaled to levels from 0 to 255, on `size` x `size` pixels per cell.
const enlarge = ({ map, low, high }, size) => {
  const [rows, columns] = [map.length, map[0].length];
  const small = make("canvas", { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  map.flat().forEach((value, i) => {
    const level = 255 * (high > low ? (value - low) / (high - low) : 1);
    pixels.data.set([level, level, level, 255], 4 * i);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const large = make("canvas", { width: columns * size, height: rows * size });
  const context = large.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, large.width, large.height);
  return context.getImageData(0, 0, large.width, large.height);
};

// Each palette gives a function from a level to [red, green, blue, opacity], all from 0 to 255.
const palettes = {
  // The same picture as overlay.draw_attention makes, as one transparent layer: it mixes the layers
  // for attended and unattended cells in proportion to the map.
  spotlight: () => {
    const [warm, warmth] = props.attended;
    const [cold, coldness] = props.unattended;
    return (level) => {
      const w = level / 255;
      const opacity = w * warmth + (1 - w) * coldness;
      const mix = (c) => (w * warmth * warm[c] + (1 - w) * coldness * cold[c]) / opacity;
      return [mix(0), mix(1), mix(2), 255 * opacity];
    };
  },
  heat: () => {
    const colours = props.colour_maps[view.colours];
    return (level) => {
      const part = (c) => parseInt(colours.substr(6 * level + 2 * c, 2), 16);
      return [part(0), part(1), part(2), 255 * view.opacity];
    };
  },
};

const drawAttention = (canvas, shownMap, size = 32) => {
  const pixels = enlarge(shownMap, size);
  const palette = palettes[view.style]();
  const colours = Array.from({ length: 256 }, (_, level) => palette(level));
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(colours[pixels.data[i]], i);
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
};

// Draws the bar that says which colour stands for how much attention.
const drawScale = (shownMap) => {
  const scale = find(".scale");
  scale.style.visibility = shownMap ? "visible" : "hidden";
  if (!shownMap) return;
  const palette = palettes[view.style]();
  const bar = find(".scale canvas");
  [bar.width, bar.height] = [256, 1];
  const pixels = new ImageData(256, 1);
  for (let level = 0; level < 256; level++) pixels.data.set(palette(level), 4 * level);
  bar.getContext("2d").putImageData(pixels, 0, 0);
  const { low, high } = shownMap;
  const label = (value) => (view.special ? `×${value.toFixed(1)}` : `${(100 * value).toFixed(0)}%`);
  find(".scale .low").textContent = label(low);
  find(".scale .high").textContent = label(high);
  find(".scale .unit").textContent = view.special
    ? "the caption's mean"
    : "of the attention, per cell";
};

const redraw = () => {
  const { style, special } = view;
  findAll(".view [data-style]").forEach((button) => {
    button.setAttribute("aria-pressed", button.dataset.style === style);
  });
  find(".special input").checked = special;
  find(".heat").hidden = style !== "heat";
  if (!shown || captions.length === 0) return;
  if (current >= 0) showWord(current);
  findAll(".tiles canvas").forEach((canvas, i) => drawAttention(canvas, mapOf(caption(), i), 16));
};

find(".colours").append(
  ...Object.keys(props.colour_maps).map((name) => make("option", { value: name, textContent: name })),
);
findAll(".view [data-style]").forEach((button) => {
  button.addEventListener("click", () => {
    view.style = button.dataset.style;
    // The style can be seen only while a word is shown.
    if (current < 0 && caption()?.words.length) selectWord(0);
    redraw();
  });
});
find(".special input").addEventListener("change", (event) => {
  view.special = event.target.checked;
  if (current < 0 && caption()?.words.length) selectWord(0);
  redraw();
});
find(".colours").addEventListener("change", (event) => {
  view.colours = event.target.value;
  redraw();
});
find(".opacity input").addEventListener("input", (event) => {
  view.opacity = event.target.value / 100;
  redraw();
});
