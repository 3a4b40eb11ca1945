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
