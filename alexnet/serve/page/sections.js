// What stands below the guesses: nearest images, layers, kernels, the networks themselves.

import { kernelsPicture, valuesPicture } from "./draw.js";
import { byId, element, fillChoice } from "./element.js";
import { percent } from "./guesses.js";

const times = " \u00d7 ";
const count = (number) => number.toLocaleString("en-US");

/** One row of pictures a network: the neighbours [{picture, class_name, key}] of the image. */
export function nearestRow(title, neighbours) {
  const items = neighbours.map((one) =>
    element("li", {}, [
      element("img", { src: one.picture, alt: "", loading: "lazy", width: "128", height: "128" }),
      one.class_name === null
        ? element("span", { class: "key" }, [one.key.replace(/^.*\//, "")])
        : element("span", { class: "name" }, [one.class_name]),
      element("small", { title: one.key }, [`distance ${one.distance.toPrecision(3)}`]),
    ]),
  );
  return element("div", { class: "near-row" }, [title && element("h3", {}, [title]), element("ol", {}, items)]);
}

/** The layer that is chosen, of layers as `activations` of network.js gives them. */
export function showLayers(layers, chosen, onChoose) {
  const values = layers.map(({ layer }) => ({ value: layer, text: layer }));
  fillChoice(byId("layers"), values, chosen, (layer) => {
    onChoose(layer);
    showMaps(layers.find((one) => one.layer === layer));
  });
  showMaps(layers.find((one) => one.layer === chosen));
}

function showMaps(layer) {
  const [number, rows, columns] = layer.shape;
  const isMaps = layer.shape.length === 3;
  const shown = isMaps ? layer.channels.length : number;
  const sentence = isMaps
    ? `${layer.layer}: ${shown < number ? `the ${shown} strongest of ` : ""}${number} maps of ${rows}${times}${columns}`
    : `${layer.layer}: ${count(number)} units, row by row`;
  const sign = layer.lowest < 0 ? "Orange is above zero, blue below." : "The stronger the colour, the larger the value.";
  const area = rows * columns;
  const tiles = isMaps
    ? layer.channels.map((channel, place) => {
        const canvas = valuesPicture(layer.values.subarray(place * area, (place + 1) * area), rows, columns, layer);
        canvas.className = rows <= 32 ? "coarse" : "";
        return element("li", {}, [canvas, element("small", {}, [String(channel)])]);
      })
    : [element("li", { class: "whole" }, [unitsPicture(layer, number)])];
  byId("maps").replaceChildren(
    element("p", { class: "label" }, [`${sentence}. ${sign}`]),
    element("ul", { class: isMaps ? "tiles" : "tiles units", "aria-hidden": "true" }, tiles),
  );
}

function unitsPicture(layer, number) {
  const columns = number > 64 ? Math.min(number, Math.max(32, Math.round(Math.sqrt(number) * 2))) : number;
  const rows = Math.ceil(number / columns);
  // What is missing in the last row is zero.
  const zero = layer.highest > layer.lowest ? Math.round((-layer.lowest / (layer.highest - layer.lowest)) * 255) : 0;
  const values = new Uint8Array(rows * columns).fill(zero);
  values.set(layer.values);
  const canvas = valuesPicture(values, rows, columns, layer);
  canvas.className = "coarse";
  return canvas;
}

/** The kernels of each network: banks as `kernels` of network.js gives them. */
export function showKernels(networks) {
  const shown = networks.filter(({ banks }) => banks.length > 0);
  byId("kernels").hidden = shown.length === 0;
  byId("banks").replaceChildren(
    ...shown.map(({ title, banks }) =>
      element("div", { class: "banks" }, [
        networks.length > 1 && element("h3", {}, [title]),
        ...banks.map((bank, number) => {
          const canvas = kernelsPicture(bank, bank.count > 32 ? 16 : 8);
          canvas.setAttribute("role", "img");
          const which = banks.length > 1 ? `, bank ${number + 1} of ${banks.length}` : "";
          canvas.setAttribute("aria-label", `${bank.count} kernels of ${bank.rows} by ${bank.columns} pixels${which}`);
          return canvas;
        }),
      ]),
    ),
  );
  const hasBanks = shown.some(({ banks }) => banks.length > 1);
  byId("kernels-note").textContent =
    "What the first layer looks for, in colour; grey is zero." +
    (hasBanks ? " The two banks learned on two GPUs in 2012, and divided form and colour between them (Figure 3 of the paper)." : "");
}

/** Facts about each network, of `describe` of network.js. */
export function showFacts(networks) {
  byId("about").hidden = false;
  byId("about-title").textContent = networks.length > 1 ? "The networks" : "The network";
  byId("facts").replaceChildren(
    ...networks.map((network) => {
      const { results } = network;
      const which = network.checkpoint === null ? "" : `, ${network.checkpoint} weights`;
      const error =
        results.top1_error === null
          ? null
          : `${percent(results.top1_error)} (${results.views}, ${count(results.num_images)} images${which})`;
      const facts = [
        ["Architecture", network.architecture],
        ["Parameters", count(network.num_parameters)],
        ["Input", `${network.crop_size}${times}${network.crop_size} pixels`],
        ["Classes", count(network.classes.length)],
        ["Trained on", network.data],
        ["Steps", `${count(network.step)} (${Number(network.epoch.toPrecision(3))} epochs)`],
        ["Validation error", error],
      ].filter(([, value]) => value !== null && value !== "");
      return element("div", { class: "facts" }, [
        networks.length > 1 && element("h3", {}, [`${network.title}`]),
        element("p", { class: "note" }, [network.summary]),
        element("dl", {}, facts.map(([name, value]) => element("div", {}, [element("dt", {}, [name]), element("dd", {}, [value])]))),
      ]);
    }),
  );
}
