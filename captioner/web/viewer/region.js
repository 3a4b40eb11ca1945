// The region that the model shall look at, [left, top, right, bottom] in fractions of the photo. It
// is dragged, tapped, or moved with the arrow keys.
const stage = find(".stage");
const clamp = (x) => Math.min(1, Math.max(0, x));
let draft = null; // the region that is being chosen
let origin = null; // where the pointer went down

const drawRegion = (region) => {
  draft = region;
  const box = find(".region");
  box.hidden = !region;
  find(".whole").hidden = !shown?.region;
  if (!region) return;
  const [left, top, right, bottom] = region.map((x) => 100 * x);
  box.style.inset = `${top}% ${100 - right}% ${100 - bottom}% ${left}%`;
};

// The region of the given size whose centre is (x, y), moved so that it lies within the photo.
const regionAround = (x, y, width, height) => {
  const left = clamp(Math.min(x - width / 2, 1 - width));
  const top = clamp(Math.min(y - height / 2, 1 - height));
  return [left, top, left + width, top + height].map((v) => Math.round(1e4 * clamp(v)) / 1e4);
};

// Asks for captions of a region, or of the whole photo if it is null.
const askForRegion = (region) => ask({ kind: "captions", region });

const whereIn = (event) => {
  const { left, top, width, height } = stage.getBoundingClientRect();
  return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
};

const dragTo = (event) => {
  const [x, y] = whereIn(event);
  const [[left, right], [top, bottom]] = [[x, origin[0]], [y, origin[1]]].map((v) =>
    v.sort((a, b) => a - b),
  );
  return regionAround((left + right) / 2, (top + bottom) / 2, right - left, bottom - top);
};

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  origin = whereIn(event);
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!origin || !event.isPrimary) return;
  selectWord(-1);
  drawRegion(dragTo(event));
});
stage.addEventListener("pointerup", (event) => {
  if (!origin || !event.isPrimary) return;
  const [left, top, right, bottom] = dragTo(event);
  const isDrag = right - left > 0.04 && bottom - top > 0.04;
  const region = isDrag ? [left, top, right, bottom] : regionAround(...origin, 0.3, 0.3);
  origin = null;
  drawRegion(region);
  askForRegion(region);
});
stage.addEventListener("pointercancel", () => {
  origin = null; // the browser has taken the finger's movement for scrolling
  drawRegion(caption().region);
});

// A finger that moves up or down scrolls the page; in any other direction it draws a box. That must
// be decided with the first movement, because the browser asks only then.
let finger = null; // {x, y, draws}: where it went down, and whether it draws a box
stage.addEventListener(
  "touchstart",
  ({ touches }) => {
    finger = touches.length === 1 ? { x: touches[0].clientX, y: touches[0].clientY } : null;
  },
  { passive: true },
);
stage.addEventListener(
  "touchmove",
  (event) => {
    if (!finger) return;
    const { clientX, clientY } = event.touches[0];
    finger.draws ??= 2.5 * Math.abs(clientX - finger.x) > Math.abs(clientY - finger.y);
    if (finger.draws && event.cancelable) event.preventDefault();
  },
  { passive: false },
);

stage.addEventListener("keydown", (event) => {
  if (event.target !== stage) return;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const [dx, dy] = arrows[event.key] ?? [];
  if (event.key === "Enter" && draft) askForRegion(draft);
  else if (event.key === "Escape" && draft) {
    if (shown.region) askForRegion(null);
    else drawRegion(null);
  } else if (dx !== undefined) {
    selectWord(-1);
    drawRegion(moved(dx, dy, event.shiftKey));
  } else return;
  event.preventDefault();
});

// The region after an arrow key, which moves it or, with Shift, changes its size. The first key makes
// a region in the middle.
const moved = (dx, dy, resize) => {
  if (!draft) return regionAround(0.5, 0.5, 0.4, 0.4);
  const [left, top, right, bottom] = draft;
  const [x, y, width, height] = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top];
  if (!resize) return regionAround(x + 0.05 * dx, y + 0.05 * dy, width, height);
  const within = (size) => Math.min(1, Math.max(0.1, size));
  return regionAround(x, y, within(width + 0.1 * dx), within(height + 0.1 * dy));
};

find(".whole").addEventListener("click", () => {
  stage.focus({ preventScroll: true });
  askForRegion(null);
});
