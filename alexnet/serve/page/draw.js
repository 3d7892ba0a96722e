// Arrays to pictures: where a network looked, maps of a layer, kernels. Everything takes plain arrays of bytes.

/** [red, green, blue] of the page's own colour `name`, so that pictures follow light and dark. */
function pageColor(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = parseInt(text.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

// Violet to pale yellow; lightness rises evenly, so that it reads in grey as well.
const HEAT = [
  [92, 30, 120],
  [160, 36, 108],
  [221, 66, 74],
  [249, 142, 48],
  [254, 232, 136],
];

/** The colour of heat t from 0 to 1. */
export function heatColor(t) {
  const place = Math.min(t, 0.9999) * (HEAT.length - 1);
  const [from, to, part] = [HEAT[Math.floor(place)], HEAT[Math.floor(place) + 1], place % 1];
  return from.map((value, channel) => Math.round(value + part * (to[channel] - value)));
}

/** A canvas of rows x columns pixels, each coloured by paint(byte, pixel) -> [red, green, blue, alpha]. */
function painted(values, rows, columns, paint) {
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let pixel = 0; pixel < rows * columns; pixel++) {
    image.data.set(paint(values[pixel], pixel), 4 * pixel);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Where a network looked, as a picture to lay over its crop: clear where it saw nothing, opaque where it saw most. */
export function heatPicture({ values, rows, columns }) {
  const palette = Array.from({ length: 256 }, (_, byte) => {
    const t = byte / 255;
    return [...heatColor(t), Math.round(255 * Math.min(1, 1.6 * t))];
  });
  return painted(values, rows, columns, (byte) => palette[byte]);
}

/** The scale that belongs to heatPicture, filling a canvas from left to right. */
export function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${heatColor(x / (canvas.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

/**
 * Values of a layer as a canvas: above zero in one colour of the page, below in the other, zero clear.
 * lowest and highest are what the bytes 0 and 255 stand for.
 */
export function valuesPicture(values, rows, columns, { lowest, highest }) {
  const [above, below] = [pageColor("--second"), pageColor("--first")];
  const reach = Math.max(-lowest, highest) || 1;
  const palette = Array.from({ length: 256 }, (_, byte) => {
    const value = (lowest + (byte / 255) * (highest - lowest)) / reach;
    return [...(value < 0 ? below : above), Math.round(255 * Math.sqrt(Math.abs(value)))];
  });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  canvas.getContext("2d").drawImage(painted(values, rows, columns, (byte) => palette[byte]), 0, 0);
  return canvas;
}

/** The kernels of a bank in a grid: one canvas, pixel for pixel, a clear line between two kernels. */
export function kernelsPicture({ count, rows, columns, pixels }, perRow) {
  const canvas = document.createElement("canvas");
  const lines = Math.ceil(count / perRow);
  [canvas.width, canvas.height] = [perRow * (columns + 1) - 1, lines * (rows + 1) - 1];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let kernel = 0; kernel < count; kernel++) {
    const [left, top] = [(kernel % perRow) * (columns + 1), Math.floor(kernel / perRow) * (rows + 1)];
    for (let pixel = 0; pixel < rows * columns; pixel++) {
      const [x, y] = [left + (pixel % columns), top + Math.floor(pixel / columns)];
      const from = 3 * (kernel * rows * columns + pixel);
      image.data.set([...pixels.subarray(from, from + 3), 255], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
