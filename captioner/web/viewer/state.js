// The viewer's value is null or JSON text, an answer to what `requests.js` has asked:
//   answer: its name; wish: the number of the wish; done: false if more comes;
//   message, about: why the wish was refused; or
//   key: by which the server knows the photo; captions: all that the wish has brought so far, each
//   {text, words, log_probs, attention, alternatives, source, region, note}, and except for a
//   completion options: the values of the controls, and sources: all searches that are planned;
//   for a new photo, too, photo: a data URL, size: [width, height], example: its number or null.
const OPTIONS = ["num_captions", "strategy", "temperature", "top_p", "seed"]; // of the controls
const SECONDS_PER_WORD = 0.8;
const MOST_OWN = 5; // captions that the visitor has had a word in, kept on the page

let shown = null; // {id, key, photo, size, example, name, region, options}
let captions = []; // those on the page, as they stand there
let chosen = 0; // of the captions
let current = -1; // the word whose attention is shown, or -1
let film = null; // the running timer
let touched = false; // the visitor has chosen a caption or a word of what is shown

const caption = () => captions[chosen];

const percent = (logProb) => {
  const p = 100 * Math.exp(logProb);
  return p < 1 ? "<1%" : `${p.toFixed(0)}%`;
};

// Says something to who cannot see the page.
const announce = (text) => {
  find(".announcer").textContent = text;
};
