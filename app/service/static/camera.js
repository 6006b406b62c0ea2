// A photo from the camera of a computer; a phone's own camera is asked for by the input beside it.
import { byId } from "./elements.js";

let stream = null;
let asked = 0;

// Offers it where there is a camera and a mouse, and gives each photo to `take`.
export async function offerCamera(take) {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? []; // none where the page is not https
  byId("snap").hidden = !matchMedia("(pointer: fine)").matches || !devices.some(({ kind }) => kind === "videoinput");
  byId("take").addEventListener("click", async () => {
    const photo = await picture(byId("live"));
    byId("finder").close();
    take(photo);
  });
}

async function open() {
  const mine = ++asked;
  byId("take").disabled = true;
  byId("finder-said").textContent = "Waiting for the camera…";
  byId("finder").showModal();
  try {
    const found = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 }, height: { ideal: 1080 } } });
    if (mine !== asked || !byId("finder").open) return stop(found);
    stream = found;
    byId("live").srcObject = stream;
    await byId("live").play();
    byId("finder-said").textContent = "Nothing is sent before you take the photo.";
    byId("take").disabled = false;
  } catch (error) {
    byId("finder-said").textContent = error.name === "NotAllowedError" ? "The browser may not use the camera." : "The camera cannot be used.";
  }
}

const stop = (one) => one.getTracks().forEach((track) => track.stop());

function picture(video) {
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
}

byId("snap").addEventListener("click", open);
byId("finder-shut").addEventListener("click", () => byId("finder").close());
byId("finder").addEventListener("close", () => {
  if (stream) stop(stream);
  stream = byId("live").srcObject = null;
});
