// From an image of any size to the square of it that a network is given, to the last bit as alexnet/data/resample.py
// makes it. (What a canvas scales is smoothed otherwise in every browser, and a network answers otherwise for it.)
//
// Shrinking averages over all covered pixels (a triangle as wide as the scale), enlarging is bicubic; weights are whole
// numbers of 22 bits, and each axis is rounded to bytes, as in Pillow.

const FILTERS = {
  bilinear: { support: 1, at: (x) => (x < 1 ? 1 - x : 0) },
  bicubic: {
    support: 2,
    at: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0),
  },
};
const ONE = 2 ** 22;
const HALF = 2 ** 21;
const STRIP_PIXELS = 2 ** 21; // of the image that are read at once

/**
 * The centre square of an image of width x height pixels, its shorter side scaled to `size`: size x size x 3 bytes, RGB.
 * read(left, top, columns, rows) gives a part of the image as bytes, four a pixel; the fourth is not looked at.
 */
export function squareOf(read, width, height, size) {
  const short = Math.min(width, height);
  const filter = short > size ? "bilinear" : "bicubic";
  const [across, down] = [width, height].map((side) => {
    const scaled = side === short ? size : Math.max(size, roundedToEven((side * size) / short));
    const first = Math.floor((scaled - size) / 2);
    if (short === size) {
      return axis(side, first, first + size, size, filter); // nothing but a crop: every weight is 0 or 1
    }
    return axis(side, (first * side) / scaled, Math.min(side, ((first + size) * side) / scaled), size, filter);
  });
  const [left, right] = extent(across);
  const [top, bottom] = extent(down);
  const columns = right - left;
  const narrow = new Uint8Array((bottom - top) * size * 3);
  const strip = Math.max(1, Math.floor(STRIP_PIXELS / columns));
  for (let row = top; row < bottom; row += strip) {
    const rows = Math.min(strip, bottom - row);
    const pixels = read(left, row, columns, rows);
    alongX(pixels, columns, rows, across, left, narrow.subarray((row - top) * size * 3));
  }
  return alongY(narrow, size, down, top);
}

/** The weights that bring the part from start to stop of `length` pixels to `size`: `taps` of them from `first` on. */
export function axis(length, start, stop, size, filter) {
  const { support, at } = FILTERS[filter];
  const [begin, end] = [Math.fround(start), Math.fround(stop)];
  const scale = Math.fround(end - begin) / size;
  const spread = Math.max(scale, 1);
  const reach = support * spread;
  const windows = Array.from({ length: size }, (_, place) => {
    const center = begin + (place + 0.5) * scale;
    const low = Math.max(Math.trunc(center - reach + 0.5), 0);
    const high = Math.min(Math.trunc(center + reach + 0.5), length);
    return { center, low, high };
  });
  const taps = Math.max(...windows.map(({ low, high }) => high - low));
  const first = new Int32Array(size);
  const weights = new Int32Array(size * taps);
  windows.forEach(({ center, low, high }, place) => {
    // A window of `taps` pixels that holds low ... high - 1 and does not reach over the end.
    first[place] = Math.min(low, length - taps);
    const shares = Array.from({ length: taps }, (_, tap) => {
      const pixel = first[place] + tap;
      return pixel >= low && pixel < high ? at(Math.abs((pixel - center + 0.5) * (1 / spread))) : 0;
    });
    const total = shares.reduce((sum, share) => sum + share, 0);
    shares.forEach((share, tap) => {
      const weight = (total === 0 ? share : share / total) * ONE;
      weights[place * taps + tap] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    });
  });
  return { first, taps, weights };
}

function extent({ first, taps }) {
  return [first[0], first[first.length - 1] + taps]; // first never falls
}

function alongX(pixels, columns, rows, { first, taps, weights }, left, out) {
  const size = first.length;
  for (let row = 0; row < rows; row++) {
    for (let place = 0; place < size; place++) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let at = 4 * (row * columns + first[place] - left);
      for (let tap = place * taps; tap < (place + 1) * taps; tap++, at += 4) {
        red += weights[tap] * pixels[at];
        green += weights[tap] * pixels[at + 1];
        blue += weights[tap] * pixels[at + 2];
      }
      const to = 3 * (row * size + place);
      out[to] = byte(red);
      out[to + 1] = byte(green);
      out[to + 2] = byte(blue);
    }
  }
}

function alongY(narrow, columns, { first, taps, weights }, top) {
  const [size, line] = [first.length, 3 * columns];
  const out = new Uint8Array(size * line);
  for (let row = 0; row < size; row++) {
    for (let place = 0; place < line; place++) {
      let sum = HALF;
      let at = (first[row] - top) * line + place;
      for (let tap = row * taps; tap < (row + 1) * taps; tap++, at += line) {
        sum += weights[tap] * narrow[at];
      }
      out[row * line + place] = byte(sum);
    }
  }
  return out;
}

function byte(sum) {
  const value = sum >> 22;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** As Python rounds: halves to the even neighbour. */
function roundedToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
