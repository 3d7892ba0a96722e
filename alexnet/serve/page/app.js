// The page as a whole: an image comes in, the networks are asked, everything is shown.

import * as network from "./network.js";
import { drawScale } from "./draw.js";
import { byId, element, fillChoice } from "./element.js";
import { classList, guessBars, percent } from "./guesses.js";
import { drawDigits, takeImages } from "./intake.js";
import { nearestRow, showFacts, showKernels, showLayers } from "./sections.js";
import { Stage } from "./stage.js";

const NUM_MAPS = 32;
const NUM_NEAREST = 6;

let description = null;
let views = []; // of each network: what makeView gives
let asked = new AbortController();
let layerChosen = null;
let insideChosen = null;

start();

async function start() {
  drawScale(byId("scale"));
  try {
    description = await network.describe();
  } catch (error) {
    refuse(error.message);
    return;
  }
  const { networks } = description;
  byId("which").replaceChildren(...networks.map((card) => element("span", {}, [headline(card)])));
  views = networks.map(makeView);
  byId("views").replaceChildren(...views.map(({ root }) => root));
  byId("views").classList.toggle("two", views.length > 1);
  showFacts(networks);
  showExamples(description.examples);
  takeImages((blob, name) => look(blob, name, null), refuse);
  if (networks.some((card) => card.data === "digits")) {
    drawDigits((blob, name) => look(blob, name, null));
  }
  byId("overlay").addEventListener("change", (event) => restage((stage) => (stage.isOverlaid = event.target.checked)));
  byId("strength").addEventListener("input", (event) => restage((stage) => (stage.strength = event.target.value / 100)));
  // Pictures are drawn in the page's colours.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showInside());
  awaitData();
  await Promise.all([showAllKernels(), awaitNetworks()]);
}

function headline(card) {
  return `${card.title}: ${card.architecture}, ${card.classes.length.toLocaleString("en-US")} classes`;
}

function restage(change) {
  for (const { stage } of views) {
    change(stage);
    stage.draw();
  }
}

function makeView(card) {
  const canvas = element("canvas", { role: "img" });
  const frame = element("div", { class: "stage" }, [canvas]);
  const bars = element("div", { class: "bars" });
  const title = description.networks.length > 1 && element("h3", {}, [card.title]);
  const root = element("article", { class: "view" }, [title, frame, bars].filter(Boolean));
  return { card, root, bars, canvas, stage: new Stage(canvas), square: null, guesses: [], chosen: null, layers: null };
}

function showExamples(examples) {
  byId("examples").hidden = examples.length === 0;
  byId("examples").querySelector("ul").replaceChildren(
    ...examples.map((example) => {
      const image = element("img", { src: example.picture, alt: `Example ${example.class_name ?? example.index + 1}`, width: "64", height: "64" });
      const button = element("button", { type: "button", class: "example" }, [image]);
      button.addEventListener("click", async () => {
        const answer = await fetch(example.picture).catch(() => null);
        if (!answer?.ok) {
          refuse("The example cannot be fetched. Is the server still running?");
          return;
        }
        const truth = example.class_id === null ? null : { id: example.class_id, name: example.class_name };
        look(await answer.blob(), "The example", truth);
      });
      return element("li", {}, [button]);
    }),
  );
}

/** Ask all networks about an image; truth: {id, name} of its class, or null. */
async function look(blob, name, truth) {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  byId("alert").hidden = true;
  const limit = description.limits.max_upload_bytes;
  if (blob.size > limit) {
    document.body.classList.remove("busy"); // with the image before, which is given up
    refuse(`${name || "The image"} is larger than ${limit / 1e6} MB, which is the most that is taken here.`);
    return;
  }
  document.body.classList.add("busy");
  say("Looking at the image.");
  try {
    const answer = await network.predict(blob, signal);
    const picture = await drawable(blob, answer);
    if (!signal.aborted) {
      await show(answer, picture, name, truth, signal);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      refuse(error.message);
    }
  } finally {
    if (!signal.aborted) {
      document.body.classList.remove("busy");
    }
  }
}

/** The image as something that can be drawn: as it is, or, where the browser cannot read its format, what the network got. */
async function drawable(blob, answer) {
  try {
    const picture = await createImageBitmap(blob);
    return { picture, size: answer.image, whole: true };
  } catch {
    return { picture: null, size: null, whole: false };
  }
}

async function show(answer, { picture, size, whole }, name, truth, signal) {
  byId("answer").hidden = false;
  document.body.classList.add("answered");
  const [how, what] = verdictOf(answer);
  byId("verdict").replaceChildren(element("span", { class: "how" }, [how]), ` ${what}`);
  for (const one of answer.networks) {
    const view = views.find(({ card }) => card.id === one.network);
    Object.assign(view, { square: one.square, guesses: one.guesses, layers: null });
    if (whole) {
      view.stage.show(picture, size, one.box, view.card.crop_size);
    } else {
      const square = await createImageBitmap(one.square);
      const margin = (square.width - view.card.crop_size) / 2;
      const box = { left: margin, top: margin, side: view.card.crop_size };
      view.stage.show(square, square, box, view.card.crop_size);
    }
    const choose = (guess) => {
      say(`Showing where the network looked for ${guess.name}.`);
      lookFor(view, guess, signal);
    };
    const bars = guessBars(`guess-${view.card.id}`, one.guesses, truth, (guess) => {
      list.querySelector("select").value = "";
      choose(guess);
    });
    const list = classList(view.card.classes, (guess) => {
      bars.querySelectorAll("input").forEach((input) => (input.checked = false));
      choose(guess);
    });
    view.bars.replaceChildren(bars, list);
  }
  document.title = `${what} - alexnet`;
  say(`${how} ${what}. ${views.map(spoken).join(" ")}`);
  byId("verdict").scrollIntoView({ block: matchMedia("(max-width: 46rem)").matches ? "start" : "nearest" });
  await Promise.all([
    ...views.map((view) => lookFor(view, view.guesses[0], signal)),
    showNearest(signal),
    showInside(signal),
  ]);
}

/** In a word how sure they are, and what they say. */
function verdictOf({ networks: [first, second] }) {
  const best = first.guesses[0];
  if (!second) {
    return [howSure(best.probability), best.name];
  }
  const other = second.guesses[0];
  return best.name === other.name ? ["Both say", best.name] : ["They disagree:", `${best.name}, or ${other.name}`];
}

function howSure(probability) {
  return probability >= 0.9 ? "Surely" : probability >= 0.5 ? "Probably" : probability >= 0.2 ? "Perhaps" : "At a guess";
}

function spoken({ card, guesses }) {
  const list = guesses.map((guess) => `${guess.name} ${percent(guess.probability)}`).join(", ");
  return views.length > 1 ? `${card.title}: ${list}.` : `${list}.`;
}

async function lookFor(view, guess, signal) {
  view.chosen = guess;
  view.root.classList.add("waiting");
  view.canvas.setAttribute("aria-label", `The image, with where the network looked for ${guess.name}.`);
  try {
    const heat = await network.lookFor(view.card.id, view.square, guess.index, signal);
    if (view.chosen === guess) { // answers may come in another order than they were asked for
      view.stage.lay(heat);
    }
  } catch (error) {
    complain(error);
  } finally {
    if (view.chosen === guess) {
      view.root.classList.remove("waiting");
    }
  }
}

async function showNearest(signal) {
  const { data } = description;
  byId("near").hidden = data === null;
  if (data === null) {
    return;
  }
  byId("near-title").textContent = `The nearest images in ${data.name}`;
  if (!data.is_ready) {
    byId("near-note").textContent = data.failure
      ? `They are not available: ${data.failure}.`
      : `The network is still looking at the images of ${data.name}: ${Math.floor(100 * data.share_done)} % are done.`;
    return;
  }
  try {
    const rows = await Promise.all(
      views.map(async ({ card, square }) =>
        nearestRow(views.length > 1 ? card.title : null, await network.nearest(card.id, square, NUM_NEAREST, signal)),
      ),
    );
    byId("near-note").textContent =
      `Of ${data.num_images.toLocaleString("en-US")} images, those whose outputs of the last hidden layer ` +
      "are nearest to this one's (Figure 4 of the paper, right).";
    byId("near-rows").replaceChildren(...rows);
  } catch (error) {
    if (error.name !== "AbortError") {
      byId("near-note").textContent = error.message;
      byId("near-rows").replaceChildren();
    }
  }
}

/** Until the networks have seen the data set, ask how far they are. */
async function awaitData() {
  while (description.data && !description.data.is_ready && !description.data.failure) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      description.data = (await network.describe()).data;
    } catch {
      return; // the server has gone; the next image will say so
    }
    if (views[0].square) {
      showNearest(asked.signal);
    }
  }
}

async function showInside(signal) {
  if (!views[0]?.square) {
    return;
  }
  byId("inside").hidden = false;
  const view = views.find(({ card }) => card.id === insideChosen) ?? views[0];
  byId("inside-network").hidden = views.length === 1;
  fillChoice(
    byId("inside-network"),
    views.map(({ card }) => ({ value: card.id, text: card.title })),
    view.card.id,
    (id) => {
      insideChosen = id;
      showInside(asked.signal);
    },
  );
  byId("inside-note").textContent =
    "What each layer makes of the image, from the first convolution to the scores of the classes.";
  try {
    // Dropout drops nothing here; at most it halves.
    view.layers ??= (await network.activations(view.card.id, view.square, NUM_MAPS, signal)).filter(
      ({ kind }) => kind !== "Dropout",
    );
    const names = view.layers.map(({ layer }) => layer);
    layerChosen = names.includes(layerChosen) ? layerChosen : names[0];
    showLayers(view.layers, layerChosen, (layer) => (layerChosen = layer));
  } catch (error) {
    complain(error);
  }
}

/** Where the networks still have to come, show how far they are. */
async function awaitNetworks() {
  const coming = byId("coming");
  try {
    await network.prepare((share, sentence) => {
      coming.hidden = false;
      const bar = coming.querySelector("progress");
      share === null ? bar.removeAttribute("value") : (bar.value = share);
      coming.querySelector("span").textContent = sentence;
    });
  } catch (error) {
    complain(error);
  } finally {
    coming.hidden = true;
  }
}

async function showAllKernels() {
  try {
    const all = await Promise.all(
      description.networks.map(async (card) => ({ title: card.title, banks: await network.kernels(card.id) })),
    );
    showKernels(all);
  } catch (error) {
    complain(error);
  }
}

function complain(error) {
  if (error.name !== "AbortError") {
    refuse(error.message);
  }
}

function refuse(sentence) {
  const alert = byId("alert");
  alert.hidden = false;
  alert.textContent = sentence;
  say("");
}

function say(sentence) {
  byId("status").textContent = sentence;
}
