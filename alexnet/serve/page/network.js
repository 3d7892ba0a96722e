// What the page needs of the networks, wherever they run. This module asks the server; the one of
// alexnet/exporting/web/page has the same functions and runs the networks in the browser. Nothing else in the page knows
// where answers come from.
//
// describe()                            -> {version, networks, limits, data, examples}
// prepare(onProgress)                   -> when images can be asked about; onProgress(share or null, sentence) meanwhile
// predict(image, signal)                -> {image: {width, height, format}, networks: [{network, guesses, box, square}]}
// lookFor(network, square, index, signal) -> {rows, columns, highest, values}
// activations(network, square, maps, signal) -> [{layer, kind, shape, channels, lowest, highest, values}]
// nearest(network, square, count, signal)    -> [{picture, class_name, key, distance}]
// kernels(network)                      -> [{count, rows, columns, pixels}]
//
// An image is a Blob (a file), values and pixels are Uint8Arrays. A square is the part of an image that a network is
// given: asked about it, the network says exactly the same. Here it is a PNG file. All functions throw NetworkError.

export class NetworkError extends Error {}

export async function describe() {
  return (await ask("api/description")).json();
}

export async function prepare() {} // a server answers when its networks are loaded

export async function predict(image, signal) {
  const answer = await (await ask("api/predict?square=true", image, signal)).json();
  for (const one of answer.networks) {
    one.square = new Blob([bytes(one.square)], { type: "image/png" });
  }
  return answer;
}

export async function lookFor(network, square, index, signal) {
  const heat = await (await ask(`api/gradcam?network=${network}&index=${index}`, square, signal)).json();
  return { ...heat, values: bytes(heat.values) };
}

export async function activations(network, square, maps, signal) {
  const answer = await (await ask(`api/activations?network=${network}&maps=${maps}`, square, signal)).json();
  return answer.layers.map((layer) => ({ ...layer, values: bytes(layer.values) }));
}

export async function nearest(network, square, count, signal) {
  const answer = await (await ask(`api/nearest?network=${network}&count=${count}`, square, signal)).json();
  return answer.neighbours;
}

export async function kernels(network) {
  const answer = await (await ask(`api/kernels?network=${network}`)).json();
  return answer.banks.map((bank) => ({ ...bank, pixels: bytes(bank.pixels) }));
}

async function ask(address, image, signal) {
  const options = { signal };
  if (image) {
    options.method = "POST";
    options.body = image;
    options.headers = { "Content-Type": image.type || "application/octet-stream" };
  }
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new NetworkError("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    throw new NetworkError(await sentenceOf(response));
  }
  return response;
}

async function sentenceOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The server answered with the status ${response.status}.`;
  }
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
