// What the page needs of the networks, as in the server's network.js; here they run in the browser, by ONNX Runtime Web.
// A square is {pixels, outputs}: what a network is given of an image, and what it made of that, for its best guess.

import { layerMaps, heatOf, outputsByName } from "./outputs.js";
import { squareOf } from "./square.js";

export class NetworkError extends Error {}

const NUM_GUESSES = 5;
const BEST_GUESS = -1; // as a class
const RUNTIME = new URL("onnxruntime/", import.meta.url);

let description = null; // promises, of what is fetched and begun once
let runtime = null;
let loaded = null;

export function describe() {
  description ??= fetched("description.json", { cache: "no-cache" }).then((response) => response.json());
  return description;
}

/** Fetch and start the networks; onProgress(share, sentence) tells how far that is, share null where nobody knows. */
export function prepare(onProgress = () => {}) {
  loaded ??= load(onProgress);
  return loaded;
}

export async function predict(image, signal) {
  const [{ networks, limits }, sessions] = [await describe(), await prepare()];
  signal?.throwIfAborted();
  const picture = await decoded(image, limits.max_pixels);
  const { width, height } = picture;
  const squares = new Map(networks.map(({ square_size }) => [square_size, null]));
  for (const size of squares.keys()) {
    squares.set(size, squareOf(reader(picture), width, height, size));
  }
  picture.close();
  const answers = [];
  for (const card of networks) {
    const square = { pixels: squares.get(card.square_size), outputs: null };
    square.outputs = await asked(sessions, card, square, BEST_GUESS);
    signal?.throwIfAborted();
    answers.push({ network: card.id, guesses: guesses(card, square.outputs), box: cropBox(card, width, height), square });
  }
  return { image: { width, height, format: image.type }, networks: answers };
}

export async function lookFor(network, square, index, signal) {
  const card = await cardOf(network);
  const isBest = index === guesses(card, square.outputs)[0].index;
  const outputs = isBest ? square.outputs : await asked(await prepare(), card, square, index);
  signal?.throwIfAborted();
  return heatOf(outputs.get("heat"));
}

export async function activations(network, square, maps) {
  const { layers } = await cardOf(network);
  const shown = layers.filter(({ name }) => square.outputs.has(name));
  return shown.map(({ name, kind, shape }) => layerMaps(name, kind, shape, square.outputs.get(name).data, maps));
}

export async function kernels(network) {
  const { banks } = await (await fetched(`kernels-${network}.json`)).json();
  return banks.map((bank) => ({ ...bank, pixels: Uint8Array.from(atob(bank.pixels), (letter) => letter.charCodeAt(0)) }));
}

async function cardOf(network) {
  return (await describe()).networks.find(({ id }) => id === network);
}

async function load(onProgress) {
  const { networks, files } = await describe();
  const inAll = networks.reduce((sum, { id }) => sum + files[id].bytes, 0);
  let before = 0;
  const sessions = new Map();
  for (const { id } of networks) {
    const model = await bytesOf(files[id], (bytes) => {
      const megabytes = [before + bytes, inAll].map((count) => (count / 1e6).toFixed(inAll < 1e7 ? 1 : 0));
      onProgress((before + bytes) / inAll, `The network is being loaded: ${megabytes.join(" of ")} MB`);
    });
    before += files[id].bytes;
    onProgress(null, "The network is being started.");
    sessions.set(id, await started(model));
  }
  return sessions;
}

async function started(model) {
  try {
    runtime ??= begin();
    const { InferenceSession } = await runtime;
    return await InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new NetworkError(`The network cannot be started in this browser: ${error.message ?? error}`);
  }
}

/** One thread, in a worker: more would need headers that most hosts do not send, and here the page would stand still. */
async function begin() {
  const ort = await import(new URL("ort.wasm.bundle.min.mjs", RUNTIME).href);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = true;
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", RUNTIME).href };
  return ort;
}

/** A file whose size is known, with a callback for every piece that has come. */
async function bytesOf({ file, bytes }, onBytes) {
  const broken = () => new NetworkError("The network did not arrive whole. Load this page again.");
  const model = new Uint8Array(bytes);
  const stream = (await fetched(file)).body.getReader();
  let place = 0;
  try {
    for (let piece = await stream.read(); !piece.done; piece = await stream.read()) {
      model.set(piece.value, place);
      place += piece.value.length;
      onBytes(place);
    }
  } catch {
    throw broken();
  }
  if (place !== bytes) {
    throw broken();
  }
  return model;
}

async function fetched(name, options = {}) {
  let response = null;
  try {
    response = await fetch(new URL(name, import.meta.url), options);
  } catch {
    throw new NetworkError("This page's files cannot be reached. Is there a connection?");
  }
  if (!response.ok) {
    throw new NetworkError(`A file of this page is missing: ${name.split("?")[0]} (status ${response.status}).`);
  }
  return response;
}

/** An image file as it looks upright, without a change of its colours. */
async function decoded(image, maxPixels) {
  if (image.size === 0) {
    throw new NetworkError("The image is empty: it has no bytes at all.");
  }
  let picture = null;
  try {
    picture = await createImageBitmap(image, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch {
    throw new NetworkError(
      "This is not an image, or it is damaged, or of a format that your browser does not read. Browsers read JPEG, PNG, " +
        "WebP, GIF, BMP and mostly AVIF.",
    );
  }
  const pixels = picture.width * picture.height;
  if (pixels > maxPixels) {
    picture.close();
    const [found, most] = [pixels, maxPixels].map((count) => (count / 1e6).toLocaleString("en-US", { maximumFractionDigits: 1 }));
    throw new NetworkError(`This image has ${found} million pixels; the most that is taken here is ${most} million.`);
  }
  return picture;
}

/** read(left, top, columns, rows) of a picture: its pixels there, what is transparent over white. */
function reader(picture) {
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return (left, top, columns, rows) => {
    [canvas.width, canvas.height] = [columns, rows];
    context.fillStyle = "#fff";
    context.fillRect(0, 0, columns, rows);
    context.drawImage(picture, -left, -top);
    return context.getImageData(0, 0, columns, rows).data;
  };
}

async function asked(sessions, { id, square_size: side }, { pixels }, index) {
  const { Tensor } = await runtime;
  try {
    const results = await sessions.get(id).run({
      images: new Tensor("uint8", pixels.slice(), [1, side, side, 3]), // the worker takes what it is given
      class_index: new Tensor("int32", [index], [1]),
    });
    return outputsByName(results);
  } catch (error) {
    throw new NetworkError(`The network failed at this image: ${error.message ?? error}`);
  }
}

function guesses({ classes }, outputs) {
  const probabilities = outputs.get("probabilities").data;
  const order = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  return order.slice(0, NUM_GUESSES).map((index) => ({ index, ...classes[index], probability: probabilities[index] }));
}

/** The part of an image that a network looks at, in the image's pixels. */
function cropBox({ square_size: size, crop_size: crop }, width, height) {
  const short = Math.min(width, height);
  const margin = (Math.floor((size - crop) / 2) * short) / size;
  return { left: (width - short) / 2 + margin, top: (height - short) / 2 + margin, side: (crop * short) / size };
}
