// Sends the visitor's requests to the server, one at a time. While the server works on one, the last
// request that the visitor makes waits, and replaces the one that waited before. They are:
//   {kind: "photo", file} or {kind: "example", number}: show a new photo and its captions;
//   {kind: "captions", region}: make other captions of the photo;
//   {kind: "completion", prefix, word}: complete a caption, and show the word with this index;
//   {kind: "restore", entry}: show an entry of the history, which does not need the server.
let busy = null; // the request that the server is working on
let waiting = null; // the one that comes next
let requests = 0; // how many have been sent
let lastAnswer = null;
let controls = null; // the present values of the controls, or null if they have never changed
let answeredOptions = null; // the values, as JSON, for which the last answer was given

// Whether both ask for the same example or the same completion, as a double click does.
const isSame = (one, other) =>
  one.kind === other.kind &&
  (one.kind === "example" ? one.number === other.number : one.prefix && one.prefix === other.prefix);

// Whether a request is about the photo on the page. Other captions may be of the next one as well.
const isAboutShown = (request) => request.kind === "completion" || "region" in request;
// A new photo is on its way, and the request is about the old one.
const turnDown = ({ kind }) => {
  if (kind === "completion") say("words", "A new photo is on its way. Wait until it is here.");
  else drawRegion(caption()?.region ?? null);
};

const ask = (request) => {
  closeOthers();
  if (!busy) return start(request);
  if (request.kind === "restore") {
    waiting = request;
    return finishRequest(); // an answer that comes later is not for the page any more
  }
  if (isSame(request, busy)) return (waiting = null);
  if (isNewPhoto(busy) && !busy.begun && isAboutShown(request)) return turnDown(request);
  // A new photo that waits is not replaced by a request about the present photo.
  if (!waiting || !isNewPhoto(waiting) || isNewPhoto(request)) waiting = request;
};

const PATIENCE = 40; // seconds without an answer, after which the visitor may try again
let patience = null; // the timer
const start = async (request) => {
  find(".failed").hidden = true;
  if (request.kind === "restore") return restore(request.entry);
  const mine = { ...request, begun: false, request: ++requests };
  busy = mine;
  keepInTab("asked", "yes"); // for a page that is reloaded before the answer comes
  clearTimeout(patience);
  const result = find(".result");
  result.ariaBusy = "true";
  find(".empty").ariaBusy = "true";
  if (isNewPhoto(busy)) {
    say("photo", ""); // what was wrong with the photo before
    announce(request.file ? "Sending the photo …" : "Looking at the photo …");
  }
  result.given = null;
  const isSent = !request.file || (await send(request.file));
  if (busy !== mine) return; // meanwhile the visitor has asked for something else
  if (!isSent) return finishRequest();
  if (request.file) announce("Looking at the photo …");
  // Only now, because sending a photo may take long.
  patience = setTimeout(offerAgain, 1000 * PATIENCE, request);
  const { kind, number, prefix } = busy;
  const region = isNewPhoto(busy) ? null : "region" in busy ? busy.region : shown.region;
  busy.region = region;
  // The server does not keep the photos of the history, so they are sent again.
  const photo = isNewPhoto(busy) || shown.key ? undefined : shown.photo;
  const model = caption()?.model; // the model that completes a caption
  const about = { region, model, key: shown?.key, photo };
  trigger("ask", { request: busy.request, kind, number, prefix, ...about });
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
  if (answer.request !== busy?.request) return;
  find(".failed").hidden = true;
  if (answer.about === "A photo that is gone") {
    shown.key = null; // so that the photo is sent as well
    return start(busy);
  }
  if (answer.message) refuse(busy, answer);
  else accept(busy, answer);
  if (answer.options) answeredOptions = JSON.stringify(answer.options);
  // If an option was wrong, the page asks again when the options have changed. If the request was for
  // a new photo, it asks for that photo again.
  if (answer.about === "This option") {
    answeredOptions = JSON.stringify(controls);
    refusedPhoto = isNewPhoto(busy) ? busy : null;
  } else if (isNewPhoto(busy)) refusedPhoto = null;
  if (answer.done) finishRequest();
};
let refusedPhoto = null; // the request for a photo that was refused because of an option

const finishRequest = () => {
  busy = null;
  keepInTab("asked", "");
  clearTimeout(patience);
  find(".result").ariaBusy = "false";
  find(".empty").ariaBusy = "false";
  const request = waiting;
  waiting = null;
  if (request) ask(request);
  else askIfOptionsChanged();
};

// Asks for new captions if the controls have changed since the last answer.
const askIfOptionsChanged = () => {
  if (busy || (!shown && !refusedPhoto) || !controls) return;
  if (JSON.stringify(controls) === answeredOptions) return;
  const { kind, file, number } = refusedPhoto ?? { kind: "captions" };
  ask({ kind, file, number });
};

let settling = null; // the timer that waits for a slider to come to rest
listen("options", (values) => {
  controls = values;
  clearTimeout(settling);
  settling = setTimeout(askIfOptionsChanged, 300);
});

// The queue is full, or the server cannot be reached. Gradio shows which.
listen("failed", () => {
  if (busy) offerAgain(busy);
  answeredOptions = JSON.stringify(controls);
  finishRequest();
});

const offerAgain = (request) => {
  find(".failed").hidden = false;
  find(".failed button").onclick = () => {
    busy = null; // stop waiting for the answer
    ask(request);
  };
};

listen("photo", ({ file, number }) => ask(file ? { kind: "photo", file } : { kind: "example", number }));
listen("restore", (entry) => ask({ kind: "restore", entry }));
listen("refused", (message) => say("photo", message));
listen("say", announce);
watch("value", receive);
