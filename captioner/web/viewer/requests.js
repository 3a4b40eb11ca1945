// What the page asks of the server. It is a wish of the visitor, one at a time. While the server
// works, the last wish of the visitor waits, and replaces the one that waited before.
//   {kind: "photo", file} or {kind: "example", number}: show a new photo and its captions;
//   {kind: "captions", region}: make other captions of the photo;
//   {kind: "completion", prefix, word}: complete a caption, and show the word with this index;
//   {kind: "restore", entry}: show an entry of the history, which does not need the server.
let busy = null; // the wish that the server is working on
let waiting = null; // the one that comes next
let wishes = 0;
let lastAnswer = null;
let controls = null; // the present values of the controls, or null if they have never changed
let answered = null; // the values, as JSON, for which the last answer was given

const ask = (wish) => {
  closeOthers();
  if (!busy) return start(wish);
  // A new photo that waits is not replaced by a wish about the present photo.
  if (!waiting || !isNewPhoto(waiting) || isNewPhoto(wish)) waiting = wish;
};

const PATIENCE = 40; // seconds without an answer, after which the visitor may try again
let patience = null; // the timer
const start = async (wish) => {
  if (wish.kind === "restore") return restore(wish.entry);
  busy = { ...wish, begun: false, wish: ++wishes };
  clearTimeout(patience);
  patience = setTimeout(offerAgain, 1000 * PATIENCE, wish);
  const result = find(".result");
  result.ariaBusy = "true";
  find(".empty").ariaBusy = "true";
  find(".failed").hidden = true;
  if (isNewPhoto(busy)) announce("Looking at the photo …");
  result.given = null;
  if (wish.file && !(await send(wish.file))) return rest();
  const { kind, number, prefix } = busy;
  const region = isNewPhoto(busy) ? null : "region" in busy ? busy.region : shown.region;
  busy.region = region;
  // The server does not keep the photos of the history, so they are sent again.
  const photo = isNewPhoto(busy) || shown.key ? undefined : shown.photo;
  const model = caption()?.model; // whose words a completion changes
  trigger("ask", { wish: busy.wish, kind, number, prefix, region, model, key: shown?.key, photo });
};

// Sends the file to the server. If that fails, it shows a message and returns false.
const send = async (file) => {
  if (file.size > props.max_megabytes * 1e6) {
    say("photo", `${file.name} is larger than ${props.max_megabytes} MB. Make it smaller first.`);
    return false;
  }
  if (file.size === 0) {
    say("photo", `${file.name} is empty. Save or download it again.`);
    return false;
  }
  try {
    const { path, url } = await upload(file);
    const meta = { _type: "gradio.FileData" };
    find(".result").given = { path, url, orig_name: file.name, size: file.size, meta };
    return true;
  } catch (error) {
    // The error holds the server's reason, if the server could be reached.
    const full = String(error?.message ?? error).includes("no room left");
    const advice = full
      ? "The server has no room left for it. Try again later."
      : "Check the connection, then give it once more.";
    say("photo", `${file.name} could not be sent. ${advice}`);
    return false;
  }
};

const receive = () => {
  const answer = JSON.parse(props.value || "null");
  if (!answer || answer.answer === lastAnswer) return;
  lastAnswer = answer.answer;
  if (answer.wish !== busy?.wish) return;
  find(".failed").hidden = true;
  if (answer.about === "A photo that is gone") {
    shown.key = null; // now the photo goes along
    return start(busy);
  }
  if (answer.message) refuse(busy, answer);
  else accept(busy, answer);
  if (answer.options) answered = JSON.stringify(answer.options);
  // If an option was wrong, the page asks again when the options have changed. If the wish was for a
  // new photo, it asks for that photo again.
  if (answer.about === "This option") {
    answered = JSON.stringify(controls);
    again = isNewPhoto(busy) ? busy : null;
  } else if (isNewPhoto(busy)) again = null;
  if (answer.done) rest();
};
let again = null; // the photo that was refused because of an option

const rest = () => {
  busy = null;
  clearTimeout(patience);
  find(".result").ariaBusy = "false";
  find(".empty").ariaBusy = "false";
  const wish = waiting;
  waiting = null;
  if (wish) ask(wish);
  else follow();
};

// Asks for new captions if the controls have changed since the last answer.
const follow = () => {
  if (busy || (!shown && !again) || !controls || JSON.stringify(controls) === answered) return;
  ask(again ? { kind: again.kind, file: again.file, number: again.number } : { kind: "captions" });
};

let settling = null; // the timer that waits for a slider to come to rest
hear("options", (values) => {
  controls = values;
  clearTimeout(settling);
  settling = setTimeout(follow, 300);
});

// The queue is full, or the server cannot be reached. Gradio shows which.
hear("failed", () => {
  if (busy) offerAgain(busy);
  answered = JSON.stringify(controls);
  rest();
});

const offerAgain = (wish) => {
  find(".failed").hidden = false;
  find(".failed button").onclick = () => {
    busy = null; // stop waiting for the answer
    ask(wish);
  };
};

hear("photo", ({ file, number }) => ask(file ? { kind: "photo", file } : { kind: "example", number }));
hear("restore", (entry) => ask({ kind: "restore", entry }));
hear("refused", (message) => say("photo", message));
hear("say", announce);
hear("link", () => {
  const number = Number(new URLSearchParams(location.search).get("example"));
  if (Number.isInteger(number) && number >= 1) ask({ kind: "example", number });
});
watch("value", receive);
