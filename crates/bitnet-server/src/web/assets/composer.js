// The field in which messages are written.

import { byId } from "./dom.js";

const TALLEST = 0.4;

export class Composer {
  /** `actions`: { send(text), stop(), editLast() }. */
  constructor(actions) {
    this.actions = actions;
    this.input = byId("input");
    this.sendButton = byId("send");
    this.stopButton = byId("stop");
    this.running = false;
    this.allowEmpty = false;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.stopButton.addEventListener("click", () => this.actions.stop());
    this.input.addEventListener("input", () => this.changed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    byId("composer").addEventListener("click", (event) => {
      if (event.target.classList.contains("composer-box")) this.input.focus();
    });
  }

  key(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.send();
    } else if (event.key === "ArrowUp" && this.input.value === "" && this.actions.editLast()) {
      event.preventDefault();
    }
  }

  send() {
    const text = this.input.value;
    if (this.running || (!text.trim() && !this.allowEmpty)) return;
    this.input.value = "";
    this.changed();
    this.actions.send(text);
  }

  /** What is shown depends on whether an answer is being written and on the mode. */
  show({ running, mode, canContinue }) {
    this.running = running;
    this.allowEmpty = canContinue;
    this.sendButton.hidden = running;
    this.stopButton.hidden = !running;
    this.input.placeholder = mode === "completion" ? (canContinue ? "Go on, or add text first" : "The beginning of a text") : "Message";
    this.changed();
  }

  changed() {
    this.sendButton.disabled = !this.input.value.trim() && !this.allowEmpty;
    this.input.style.height = "auto";
    const height = Math.min(this.input.scrollHeight, innerHeight * TALLEST);
    this.input.style.height = `${height}px`;
    this.input.style.overflowY = this.input.scrollHeight > height + 1 ? "auto" : "hidden";
  }

  put(text) {
    this.input.value = text;
    this.changed();
    this.focus();
  }

  focus() {
    // On touch screens focus would raise the keyboard over the answer.
    if (matchMedia("(hover: hover)").matches) this.input.focus();
  }
}
