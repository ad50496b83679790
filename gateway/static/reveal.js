import { markdown } from "./markdown.js";

// Shows Markdown as it comes, evenly: a few letters a frame, faster the more there is to catch up with.
export class Reveal {
  constructor(into, grown) {
    this.into = into;
    this.grown = grown;
    this.shown = "";
    this.left = "";
    this.running = null;
  }

  add(text) {
    this.left += text;
    if (text) this.running ??= this.run();
  }

  async run() {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    while (this.left) {
      const letters = still || document.hidden ? this.left.length : Math.max(1, Math.ceil(this.left.length / 10));
      this.into.classList.remove("waiting");
      this.shown += this.left.slice(0, letters);
      this.into.replaceChildren(markdown(this.shown));
      this.left = this.left.slice(letters);
      this.grown();
      await Promise.race([new Promise(requestAnimationFrame), new Promise((resolve) => setTimeout(resolve, 50))]);
    }
    this.running = null;
  }
}
