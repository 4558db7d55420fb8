// The settings of a conversation: mode, system prompt, sampling. An empty field means the model's default, which it shows
// in grey; only what the user sets is sent.

import { PARAMETERS } from "./conversation.js";
import { byId, h } from "./dom.js";
import { isNarrow } from "./sidebar.js";

export class Settings {
  /** `changed(conversation)` is called when the user has changed something. */
  constructor(changed) {
    this.changed = changed;
    this.conversation = null;
    this.panel = byId("settings");
    this.opener = byId("open-settings");
    this.system = byId("system");
    this.fields = new Map(PARAMETERS.map((parameter) => [parameter.name, new Field(parameter, () => this.store())]));
    byId("parameters").append(...[...this.fields.values()].map((field) => field.element));
    this.system.addEventListener("input", () => this.store());
    byId("mode").addEventListener("change", () => this.store());
    byId("reset-settings").addEventListener("click", () => this.reset());
    this.opener.addEventListener("click", () => this.toggle());
    byId("close-settings").addEventListener("click", () => this.toggle(false));
    this.panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.toggle(false);
    });
  }

  /** Shows the settings of a conversation and the defaults of its model (null while they are not known). */
  show(conversation, model) {
    this.conversation = conversation;
    if (this.system.value !== conversation.system) this.system.value = conversation.system;
    for (const [name, field] of this.fields) field.show(conversation.settings[name], model?.defaults?.[name]);
    const noTemplate = model?.hasTemplate === false;
    for (const radio of byId("mode").querySelectorAll("input")) {
      radio.checked = radio.value === conversation.mode;
      radio.disabled = noTemplate && radio.value === "chat";
    }
    const completing = conversation.mode === "completion";
    this.system.disabled = completing;
    byId("mode-note").textContent = noTemplate
      ? "This model has no chat template: it goes on with a text instead of answering."
      : completing
        ? "The model goes on with the text as it stands; the system prompt is not used."
        : "";
  }

  store() {
    const conversation = this.conversation;
    conversation.system = this.system.value;
    conversation.mode = byId("mode").querySelector("input:checked").value;
    conversation.settings = {};
    for (const [name, field] of this.fields) {
      const value = field.value();
      if (value !== null) conversation.settings[name] = value;
    }
    this.changed(conversation);
  }

  reset() {
    for (const field of this.fields.values()) field.clear();
    this.store();
  }

  toggle(open = this.panel.hidden) {
    this.panel.hidden = !open;
    this.opener.setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("settings-open", open);
    if (open && isNarrow()) byId("close-settings").focus();
    if (!open) this.opener.focus();
  }
}

/** One number: a field, and a slider where the range is short. */
class Field {
  constructor(parameter, changed) {
    this.parameter = parameter;
    const { name, label, hint, min, max, slider, step } = parameter;
    const id = `parameter-${name}`;
    this.input = h("input", { type: "number", id, min, max, step, inputmode: parameter.integer ? "numeric" : "decimal", "aria-describedby": `${id}-hint` });
    this.slider = slider && h("input", { type: "range", min: 0, max: slider, step, "aria-label": `${label}, slider`, tabindex: "-1" });
    this.hint = h("span", { id: `${id}-hint`, class: "muted small", text: hint });
    this.element = h("div", { class: "parameter" }, h("label", { for: id, text: label }), this.input, this.slider, this.hint);
    this.input.addEventListener("input", () => {
      this.check();
      changed();
    });
    this.slider?.addEventListener("input", () => {
      this.input.value = this.slider.value;
      this.check();
      changed();
    });
  }

  show(value, fallback) {
    const text = value === undefined ? "" : String(value);
    if (this.value() !== (value ?? null)) this.input.value = text;
    this.input.placeholder = fallback === undefined ? "default" : String(round(fallback));
    this.check();
  }

  clear() {
    this.input.value = "";
    this.check();
  }

  /** The number that is set, or null where none or no valid one is. */
  value() {
    if (this.input.value.trim() === "" || this.problem()) return null;
    return Number(this.input.value);
  }

  problem() {
    const { min, max, integer } = this.parameter;
    if (this.input.validity.badInput) return "Not a number";
    if (this.input.value.trim() === "") return "";
    const number = Number(this.input.value);
    if (number < min || number > max) return `Between ${min} and ${max}`;
    if (integer && !Number.isInteger(number)) return "A whole number";
    return "";
  }

  check() {
    const problem = this.problem();
    this.input.setAttribute("aria-invalid", String(Boolean(problem)));
    this.hint.textContent = problem || this.parameter.hint;
    this.hint.classList.toggle("error", Boolean(problem));
    if (this.slider) this.slider.value = this.input.value || this.input.placeholder;
    this.element.classList.toggle("is-default", this.input.value === "");
  }
}

function round(number) {
  return Number(number.toPrecision(6));
}
