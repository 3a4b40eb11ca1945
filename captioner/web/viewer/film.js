// The film shows the attention of one word after another.
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

find(".play").addEventListener("click", () => {
  touched = true;
  play();
});
