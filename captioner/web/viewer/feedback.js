// The form in which visitors, with their consent, leave a better caption to whoever runs the page.
const feedback = find(".feedback");
const [better, consent] = feedback.querySelectorAll("input");
const showAnswer = (text) => {
  feedback.querySelector(".answer").textContent = text;
};

const forgetFeedback = () => {
  feedback.open = false;
  feedback.querySelector("form").reset();
  showAnswer("");
};

feedback.hidden = !props.consent;
feedback.querySelector(".consent").textContent = props.consent ?? "";
feedback.addEventListener("toggle", () => {
  if (feedback.open && !better.value) better.value = caption().text;
});
feedback.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  showAnswer("Sending …");
  const { key, photo } = shown; // the photo, because the server may have forgotten it
  trigger("correct", { key, photo, caption: better.value, consent: consent.checked });
  consent.checked = false; // the visitor has agreed only for this time
});
listen("feedback", (reason) => {
  if (!reason) better.value = "";
  showAnswer(reason || "Thank you. The photo and your caption are kept.");
});
