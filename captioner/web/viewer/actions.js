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
