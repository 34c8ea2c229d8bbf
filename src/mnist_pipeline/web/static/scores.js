// How sure the predictor is of each label.

import { make } from "./elements.js";
import { ask } from "./stream.js";
import { isFinal, percent } from "./wording.js";

const MOST_KEPT = 50;
/** Of so many labels, and so short ones, the bars stand side by side. */
const MOST_COLUMNS = 12;
const LONGEST_COLUMN = 2;
const MOST_ROWS = 8;

/** What was answered, by place: what is filed does not change. */
const answers = new Map();

export class Scores {
  constructor(site) {
    this.site = site;
    this.place = null;
    this.isOpen = false;
    this.list = make("ol", { class: "bars", "aria-label": `Score of each ${site.called}` });
    this.says = make("p", { class: "says" });
    this.more = make("button", { type: "button", class: "button small", hidden: true, click: () => this.#toggle() });
    this.element = make("div", { class: "scores" }, this.list, this.says, this.more);
    this.columns = site.labels.length <= MOST_COLUMNS && site.labels.every((label) => String(label).length <= LONGEST_COLUMN);
    this.list.classList.toggle("columns", this.columns);
  }

  /** Show those of a journey, once it has come to its end. */
  async show(journey) {
    const isKnown = journey !== null && isFinal(journey) && journey.state !== "rejected";
    const place = isKnown && this.site.has_scores ? journey.destination : null;
    const key = place ?? (isKnown ? `of ${journey.id}` : null);
    if (key === this.place && key !== null) return;
    this.place = key;
    this.chosen = isKnown ? journey.label : null;
    if (place === null) {
      const own = isKnown && journey.label !== null && journey.score !== null ? [{ label: journey.label, score: journey.score }] : [];
      this.#draw(own);
      this.says.textContent = isKnown && own.length === 0 && journey.label !== null ? "The predictor gives no scores." : "";
      return;
    }
    if (!answers.has(place)) this.#draw([]);
    this.says.textContent = "";
    try {
      const scores = await scoresAt(place);
      if (this.place !== key) return;
      this.#draw(scores);
    } catch (error) {
      if (this.place === key) this.says.textContent = error.message;
    }
  }

  #draw(scores) {
    this.scores = scores;
    const known = new Map(scores.map(({ label, score }) => [label, score]));
    const ghosts = this.site.labels.slice(0, MOST_ROWS).map((label) => ({ label, score: null }));
    // Columns stand where their labels are looked for; rows are for reading, the best first.
    const shown = this.columns
      ? this.site.labels.map((label) => ({ label, score: known.get(label) ?? null }))
      : scores.length === 0 ? ghosts : scores.toSorted((one, other) => (other.score ?? 0) - (one.score ?? 0));
    const rows = this.columns || this.isOpen ? shown : shown.slice(0, MOST_ROWS);
    this.more.hidden = this.columns || shown.length <= MOST_ROWS;
    this.more.textContent = this.isOpen ? "Show the best" : `Show all ${shown.length}`;
    this.list.classList.toggle("is-long", this.isOpen);
    this.list.tabIndex = this.isOpen ? 0 : -1;
    if (!this.isOpen) this.list.removeAttribute("tabindex");
    this.list.replaceChildren(...rows.map((one) => bar(one, one.label === this.chosen)));
  }

  #toggle() {
    this.isOpen = !this.isOpen;
    this.#draw(this.scores);
  }
}

function bar({ label, score }, isChosen) {
  const filled = make("span", { class: "filled" });
  filled.style.setProperty("--share", score ?? 0);
  return make(
    "li",
    { class: isChosen ? "is-chosen" : null },
    make("bdi", { class: "label" }, String(label)),
    make("span", { class: "track", "aria-hidden": "true" }, filled),
    make("span", { class: "value" }, score === null ? "" : percent(score)),
  );
}

function scoresAt(place) {
  if (!answers.has(place)) {
    const asked = ask(`/api/scores?place=${encodeURIComponent(place)}`).then((told) => told.scores);
    asked.catch(() => answers.delete(place));
    answers.set(place, asked);
    if (answers.size > MOST_KEPT) answers.delete(answers.keys().next().value);
  }
  return answers.get(place);
}
