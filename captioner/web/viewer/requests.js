// Asks the server; while it is at work, only the last wish is remembered.
const ask = (...wish) => {
  closeOthers();
  if (find(".result").ariaBusy === "true") return (waiting = wish);
  find(".result").ariaBusy = "true";
  trigger(...wish);
};

const rest = () => {
  find(".result").ariaBusy = "false";
  const wish = waiting;
  waiting = null;
  if (wish) ask(...wish);
};
