// The viewer's value is null or JSON text: an answer to what `requests.js` has asked. Its fields:
//   answer: a unique name; request: the number of the request; done: false if more answers follow;
//   message, about: why the request was refused, and what the reason is about; or
//   key: by which the server knows the photo; captions: all that have been found so far, each
//   {text, words, log_probs, attention, alternatives, source, model, region, note}, and except for a
//   completion options: the values of the controls, and sources: {source, model} of all searches
//   that are planned (model: the model's name if there are two, or else empty);
//   for a new photo, too, photo: a data URL, size: [width, height], example: its number or null.
const OPTIONS = ["num_captions", "strategy", "temperature", "top_p", "seed"]; // as the controls
const SECONDS_PER_WORD = 0.8;
const MOST_OWN = 5; // captions begun by the visitor that stay on the page

let shown = null; // {id, key, photo, size, example, name, region, options}
let captions = []; // the captions on the page, in their order
let chosen = 0; // the index of the chosen caption
let current = -1; // the index of the word whose attention is shown, or -1
let film = null; // the timer of the film, while it runs
let touched = false; // whether the visitor has chosen a caption or a word since the last search

const caption = () => captions[chosen];

const percent = (logProb) => {
  const p = 100 * Math.exp(logProb);
  return p < 1 ? "<1%" : `${p.toFixed(0)}%`;
};

// Has screen readers say something.
const announce = (text) => {
  find(".announcer").textContent = text;
};
