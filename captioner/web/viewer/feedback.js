// A better caption that the visitor leaves, with consent, to whoever runs the page.
const feedback = find(".feedback");
const [better, consent] = feedback.querySelectorAll("input");
const thank = (text) => {
  feedback.querySelector(".answer").textContent = text;
};

const forgetFeedback = () => {
  feedback.open = false;
  feedback.querySelector("form").reset();
  thank("");
};

feedback.hidden = !props.consent;
feedback.querySelector(".consent").textContent = props.consent ?? "";
feedback.addEventListener("toggle", () => {
  if (feedback.open && !better.value) better.value = caption().text;
});
feedback.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  thank("Sending …");
  const { key, photo } = shown; // the photo, because the server may have forgotten it
  trigger("correct", { key, photo, caption: better.value, consent: consent.checked });
  consent.checked = false; // it was given for this time
});
hear("feedback", (reason) => {
  if (!reason) better.value = "";
  thank(reason || "Thank you. The photo and your caption are kept.");
});
