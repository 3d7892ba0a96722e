// What a network gives, in the form that the page draws: bytes between a lowest and a highest value.

/** The results of a run as name -> {data, dims} of the one image. */
export function outputsByName(results) {
  return new Map(Object.entries(results).map(([name, { data, dims }]) => [name, { data, dims: dims.slice(1) }]));
}

/** Where a class was seen: {rows, columns, highest, values}, 255 being the highest. */
export function heatOf({ data, dims: [rows, columns] }) {
  const highest = data.reduce((most, value) => Math.max(most, value), 0);
  const scale = highest > 0 ? 255 / highest : 0;
  return { rows, columns, highest, values: Uint8Array.from(data, (value) => Math.round(value * scale)) };
}

/** What a layer makes of an image: its `count` strongest maps by their mean size, or all its units. */
export function layerMaps(layer, kind, shape, data, count) {
  const area = shape.length === 3 ? shape[1] * shape[2] : 1;
  const channels = shape.length === 3 ? strongest(data, shape[0], area).slice(0, count) : [];
  const parts = channels.map((channel) => data.subarray(channel * area, (channel + 1) * area));
  const chosen = shape.length === 3 ? parts : [data];
  let [lowest, highest] = [0, 0];
  for (const part of chosen) {
    for (const value of part) {
      lowest = Math.min(lowest, value);
      highest = Math.max(highest, value);
    }
  }
  const scale = 255 / (highest - lowest || 1);
  const values = new Uint8Array(chosen.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of chosen) {
    values.set(Uint8Array.from(part, (value) => Math.round((value - lowest) * scale)), place);
    place += part.length;
  }
  return { layer, kind, shape, channels, lowest, highest, values };
}

function strongest(data, count, area) {
  const strength = new Float64Array(count);
  for (let channel = 0; channel < count; channel++) {
    for (let place = channel * area; place < (channel + 1) * area; place++) {
      strength[channel] += Math.abs(data[place]);
    }
  }
  return [...strength.keys()].sort((one, other) => strength[other] - strength[one]);
}
