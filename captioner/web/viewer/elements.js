// Helpers for the scripts of both parts. `element`, `props`, `trigger`, `upload` and `watch` come
// from Gradio, which runs the scripts of each part as one function.
const find = (selector) => element.querySelector(selector);
const findAll = (selector) => [...element.querySelectorAll(selector)];

const make = (tag, attributes, ...children) => {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
};

// Sends a message to the other part.
const emit = (name, detail) => {
  document.dispatchEvent(new CustomEvent(`captioner:${name}`, { detail }));
};
// Calls `action` for each such message.
const listen = (name, action) => {
  document.addEventListener(`captioner:${name}`, ({ detail }) => action(detail));
};

// What this tab keeps over a reload. It keeps nothing if the visitor has forbidden that.
const keepInTab = (name, value) => {
  try {
    sessionStorage.setItem(`captioner-${name}`, value);
  } catch {}
};
const keptInTab = (name) => {
  try {
    return sessionStorage.getItem(`captioner-${name}`);
  } catch {
    return null;
  }
};

// The arrow keys, Home and End move the focus within a list.
const moveWithin = (list, items, keys) => (event) => {
  const buttons = [...list.querySelectorAll(items)];
  const current = buttons.indexOf(document.activeElement);
  const isReversed = keys[0] === "ArrowLeft" && getComputedStyle(list).direction === "rtl";
  const [back, on] = isReversed ? [keys[1], keys[0]] : keys;
  const next = { [back]: current - 1, [on]: current + 1, Home: 0, End: buttons.length - 1 };
  const button = buttons[next[event.key]];
  if (!button) return;
  event.preventDefault();
  button.focus();
};
