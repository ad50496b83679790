import { markdown } from "./markdown.js";

// Shows Markdown as it comes, evenly: a few letters a frame, faster the more there is to catch up with.
// ``drawn`` is called with what it shows in after each change.
export class Typewriter {
  constructor(into, drawn) {
    this.into = into;
    this.drawn = drawn;
    this.shown = "";
    this.left = "";
    this.running = null;
  }

  add(text) {
    if (this.stopped) return;
    this.left += text;
    if (text) this.running ??= this.run();
  }

  // Shows no more: somebody else fills what it wrote into.
  stop() {
    this.stopped = true;
    this.left = "";
  }

  get text() {
    return this.shown + this.left;
  }

  async run() {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    while (this.left) {
      const letters = still || document.hidden ? this.left.length : Math.max(1, Math.ceil(this.left.length / 10));
      this.into.classList.remove("waiting");
      this.shown += this.left.slice(0, letters);
      grow(this.into, markdown(this.shown));
      this.left = this.left.slice(letters);
      this.drawn(this.into);
      await Promise.race([new Promise(requestAnimationFrame), new Promise((resolve) => setTimeout(resolve, 50))]);
    }
    this.running = null;
  }
}

// Replaces only the blocks that changed: text that a reader has selected in an earlier one stays selected.
function grow(into, made) {
  const old = [...into.childNodes].filter((node) => !node.classList?.contains("note"));
  const fresh = [...made.childNodes];
  let same = 0;
  while (same < old.length && same < fresh.length && old[same].isEqualNode(fresh[same])) same++;
  for (const node of old.slice(same)) node.remove();
  into.append(...fresh.slice(same));
}
