// The best guesses of a network as bars, as in Figure 4 of the paper. Each can be chosen, to see where it was seen.

import { element } from "./element.js";

export const percent = (share) => {
  const value = 100 * share;
  const digits = value >= 99.95 || value === 0 ? 0 : value < 0.1 ? 2 : 1;
  return value > 0 && value < 0.005 ? "< 0.01 %" : `${value.toFixed(digits)} %`;
};

/**
 * A list to choose any class from: classes [{id, name}] in the order of the outputs; onChoose({index, name}).
 */
export function classList(classes, onChoose) {
  const named = classes.map(({ name }, index) => ({ index, name }));
  named.sort((one, other) => one.name.localeCompare(other.name));
  const select = element("select", {}, [
    element("option", { value: "" }, ["choose"]),
    ...named.map(({ index, name }) => element("option", { value: index }, [name])),
  ]);
  select.addEventListener("change", () => {
    if (select.value !== "") {
      onChoose({ index: Number(select.value), name: classes[Number(select.value)].name });
    }
  });
  return element("label", { class: "any" }, ["Another class", select]);
}

/**
 * A group of radio buttons, one a guess: {index, id, name, probability}.
 * group: a name for it that no other has; truth: {id, name} of the right class, or null; onChoose(guess).
 */
export function guessBars(group, guesses, truth, onChoose) {
  const rows = guesses.map((guess, place) => {
    const input = element("input", { type: "radio", name: group, class: "spoken" });
    input.checked = place === 0;
    input.addEventListener("change", () => onChoose(guess));
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * guess.probability}%`;
    const isTrue = guess.id === truth?.id;
    return element("label", { class: isTrue ? "guess true" : "guess" }, [
      input,
      bar,
      element("span", { class: "name" }, [guess.name, isTrue && element("span", { class: "tag" }, ["true class"])]),
      element("span", { class: "share" }, [percent(guess.probability)]),
    ]);
  });
  return element("fieldset", { class: "guesses" }, [
    element("legend", {}, [rows.length === 1 ? "Best guess" : `${words(rows.length)} best guesses`]),
    ...rows,
    truth && !guesses.some(({ id }) => id === truth.id) && element("p", { class: "label" }, [`The true class is ${truth.name}.`]),
  ].filter(Boolean));
}

function words(number) {
  return ["", "One", "Two", "Three", "Four", "Five"][number] ?? String(number);
}
