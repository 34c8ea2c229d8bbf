// The newest journeys of the site, a row each.

import { arrange, make } from "./elements.js";
import { load, pictureUrl } from "./pictures.js";
import { begunAt, duration, folderOf, isFinal, moment, outcomeOf, percent, titleOf, tookOf } from "./wording.js";

const MOST_ROWS = 30;
// More than these at once are not pointed out one by one.
const FEW = 4;

export class Arrivals {
  constructor({ body, empty, onOpen }) {
    this.body = body;
    this.empty = empty;
    this.onOpen = onOpen;
    this.rows = new Map();
  }

  /** Show the newest of all journeys. */
  show(journeys) {
    const newest = [...journeys].sort((one, other) => begunAt(other) - begunAt(one)).slice(0, MOST_ROWS);
    const hadRows = this.rows.size > 0;
    const fresh = newest.filter((journey) => !this.rows.has(journey.id));
    const rows = new Map(newest.map((journey) => [journey.id, this.rows.get(journey.id) ?? this.#row()]));
    this.rows = rows;
    arrange(this.body, newest.map((journey) => rows.get(journey.id).element));
    for (const journey of newest) rows.get(journey.id).show(journey);
    if (hadRows && fresh.length <= FEW) for (const journey of fresh) rows.get(journey.id).element.classList.add("is-fresh");
    this.empty.hidden = newest.length > 0;
    this.body.parentElement.hidden = newest.length === 0;
  }

  #row() {
    const image = make("img", { alt: "", width: 32, height: 32 });
    const glass = make("span", { class: "glass" }, image);
    const open = make("button", { type: "button", class: "open" });
    const outcome = make("span", { class: "outcome" });
    const cells = {
      picture: make("td", { class: "picture" }, glass),
      name: make("th", { scope: "row", class: "object" }, open),
      outcome: make("td", {}, outcome),
      score: make("td", { class: "number score" }),
      took: make("td", { class: "number took" }),
      at: make("td", { class: "number at" }),
    };
    const element = make("tr", {}, ...Object.values(cells));
    let shown = null;
    open.addEventListener("click", () => this.onOpen(shown));
    const show = (journey) => {
      if (journey === shown) return;
      shown = journey;
      element.dataset.state = journey.state;
      open.replaceChildren(make("bdi", {}, titleOf(journey)));
      outcome.textContent = outcomeOf(journey);
      outcome.title = journey.destination === null ? "" : folderOf(journey.destination);
      cells.score.textContent = journey.score === null ? "" : percent(journey.score);
      cells.took.textContent = tookOf(journey) === null ? "" : duration(tookOf(journey));
      cells.at.textContent = begunAt(journey) === 0 ? "" : moment(begunAt(journey));
      glass.toggleAttribute("data-inline", journey.place === null);
      const place = isFinal(journey) ? journey.destination : null;
      if (place !== null && glass.dataset.place !== place) {
        glass.dataset.place = place;
        load(image, pictureUrl(place));
      }
    };
    return { element, show };
  }
}
