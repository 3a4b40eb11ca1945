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

const caption = () => captions[chosen];
