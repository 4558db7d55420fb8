// Building elements. Text always becomes text nodes: nothing in the page assigns innerHTML.

/**
 * An element. Properties: `class`, `text`, `on` ({ event: handler }), `data` ({ name: value }); everything else is an
 * attribute (true: present, false, null and undefined: absent).
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with an id; the page's own elements are always there. */
export function byId(id) {
  return document.getElementById(id);
}

/** A picture from the sprite in index.html. */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(namespace, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows a picture and is named by `label`. */
export function iconButton(name, label, action, extra = {}) {
  return h("button", { type: "button", class: "icon-button", title: label, "aria-label": label, on: { click: action }, ...extra }, icon(name));
}

/** Says something to those who hear the page instead of seeing it. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Copies text and shows on the button that it happened. */
export async function copyWithFeedback(button, text) {
  const picture = button.querySelector("use");
  const done = await copy(text);
  picture.setAttribute("href", done ? "#icon-check" : "#icon-alert");
  announce(done ? "Copied" : "The browser did not allow copying");
  setTimeout(() => picture.setAttribute("href", "#icon-copy"), 1500);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages over plain HTTP from another machine have no clipboard object; the old command still works there.
    const field = h("textarea", { class: "off-screen", readonly: true });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** Offers a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Shows a modal dialog and gives the value of the button that closed it ("" when it was dismissed). */
export function ask(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}
