// The camera. Phones open the system's own camera; elsewhere a dialog shows the camera's picture.
const shot = find(".shot");
const video = find(".shot video");
const REFUSALS = {
  NotAllowedError: "Your browser does not let this page use the camera. Allow it, then try again.",
  NotFoundError: "No camera was found. Choose a file instead.",
  NotReadableError: "Another program is using the camera. Close it, then try again.",
};

let isOpening = false; // a second stream would leave the first one on
find(".camera").addEventListener("click", async () => {
  if (isOpening) return;
  if (matchMedia("(pointer: coarse)").matches) return find(".capture").click();
  if (!navigator.mediaDevices) {
    return emit("refused", "Browsers allow the camera on secure pages (HTTPS) only.");
  }
  isOpening = true;
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    return emit("refused", REFUSALS[error.name] ?? "The camera cannot be used. Choose a file.");
  } finally {
    isOpening = false;
  }
  shot.showModal();
});
find(".take").addEventListener("click", () => {
  const { videoWidth: width, videoHeight: height } = video;
  if (!width) return; // the camera has sent no picture yet
  const save = (blob) => give([new File([blob], "camera.jpg", { type: blob.type })]);
  drawOnCanvas(video, { width, height }).toBlob(save, "image/jpeg", 0.92);
  shot.close();
});
find(".cancel").addEventListener("click", () => shot.close());
shot.addEventListener("close", () => {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
});
