// All ways for an image to come in: dropped, pasted, chosen, photographed, drawn.

import { byId } from "./element.js";

/** onImage(blob, name) for each image that comes; onRefused(sentence) where something else does. */
export function takeImages(onImage, onRefused) {
  chosen(byId("file"), onImage);
  chosen(byId("photograph-file"), onImage);
  dropped(onImage, onRefused);
  pasted(onImage, onRefused);
  photographed(onImage, onRefused);
  for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}

function chosen(input, onImage) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // so that the same file can be chosen again
    if (file) {
      onImage(file, file.name);
    }
  });
}

function dropped(onImage, onRefused) {
  const curtain = byId("curtain");
  let depth = 0;
  const isDrag = (event) => event.dataTransfer && event.dataTransfer.types.length > 0;
  document.addEventListener("dragenter", (event) => {
    depth += 1;
    curtain.hidden = !isDrag(event);
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    curtain.hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    curtain.hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) {
      onImage(file, file.name);
    } else {
      onRefused("What you dropped is not a file. Save the image first, or copy it and paste it here.");
    }
  });
}

function pasted(onImage, onRefused) {
  document.addEventListener("paste", (event) => {
    const items = [...(event.clipboardData?.items ?? [])];
    const file = items.find((item) => item.kind === "file")?.getAsFile();
    if (file) {
      event.preventDefault();
      onImage(file, file.name);
    } else if (items.length > 0) {
      onRefused("The clipboard holds no image. Copy the image itself, not its address.");
    }
  });
}

// A telephone has a camera application, and a browser elsewhere may show what the camera sees.
function photographed(onImage, onRefused) {
  const button = byId("photograph");
  const hasCameraApplication = matchMedia("(pointer: coarse)").matches;
  const canLook = Boolean(navigator.mediaDevices?.getUserMedia);
  button.hidden = !hasCameraApplication && !canLook;
  const [dialog, viewfinder] = [byId("camera"), byId("viewfinder")];
  let stream = null;
  button.addEventListener("click", async () => {
    if (hasCameraApplication) {
      byId("photograph-file").click();
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      onRefused("There is no camera that this page may use. Allow it in your browser, or choose a file.");
      return;
    }
    viewfinder.srcObject = stream;
    dialog.showModal();
  });
  dialog.addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    viewfinder.srcObject = null;
  });
  byId("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [viewfinder.videoWidth, viewfinder.videoHeight];
    canvas.getContext("2d").drawImage(viewfinder, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => onImage(blob, "photograph.jpg"), "image/jpeg", 0.95);
  });
}

/** Let digits be drawn, for a network that knows digits: white on black, 8 x 8 pixels, as its images are. */
export function drawDigits(onImage) {
  const [button, dialog, sheet] = [byId("draw"), byId("pad"), byId("sheet")];
  const context = sheet.getContext("2d");
  let last = null;
  const wipe = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, sheet.width, sheet.height);
  };
  const place = (event) => {
    const frame = sheet.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * sheet.width,
      ((event.clientY - frame.top) / frame.height) * sheet.height,
    ];
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    wipe();
    dialog.showModal();
  });
  byId("wipe").addEventListener("click", wipe);
  sheet.addEventListener("pointerdown", (event) => {
    sheet.setPointerCapture(event.pointerId);
    last = place(event);
  });
  sheet.addEventListener("pointerup", () => (last = null));
  sheet.addEventListener("pointermove", (event) => {
    if (!last) {
      return;
    }
    const next = place(event);
    Object.assign(context, { strokeStyle: "#fff", lineWidth: 40, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...next);
    context.stroke();
    last = next;
  });
  byId("hand-in").addEventListener("click", async () => {
    const small = new OffscreenCanvas(8, 8);
    small.getContext("2d").drawImage(await createImageBitmap(sheet, { resizeWidth: 8, resizeHeight: 8, resizeQuality: "high" }), 0, 0);
    dialog.close();
    onImage(await small.convertToBlob({ type: "image/png" }), "drawing.png");
  });
}
