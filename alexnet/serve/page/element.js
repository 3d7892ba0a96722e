// Pieces of the page. Text is always set as text: a name from a file can never become markup.

/** A new element with attributes and children (elements or text; false and null are left out). */
export function element(tag, attributes = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The element of that id. */
export const byId = (id) => document.getElementById(id);

/** A fieldset's radio buttons, looking like a row of words: values [{value, text, detail}], onChoose(value). */
export function fillChoice(fieldset, values, chosen, onChoose) {
  const legend = fieldset.querySelector("legend");
  const labels = values.map(({ value, text, detail }) => {
    const input = element("input", { type: "radio", name: fieldset.id, value, class: "spoken" });
    input.checked = value === chosen;
    input.addEventListener("change", () => onChoose(value));
    return element("label", {}, [input, element("span", {}, [text, detail && element("small", {}, [detail])])]);
  });
  const hadFocus = fieldset.contains(document.activeElement);
  fieldset.replaceChildren(legend, ...labels);
  if (hadFocus) {
    fieldset.querySelector(":checked")?.focus(); // arrow keys go on from here
  }
}
