// How many results come, and how long they take.

import { find, make, say } from "./elements.js";
import { duration } from "./wording.js";

export function showFigures({ per_second, count, p50, p99, histogram }) {
  say(find("per-second"), per_second >= 100 ? per_second.toFixed(0) : per_second.toFixed(1));
  say(find("p50"), duration(p50));
  say(find("p99"), duration(p99));
  say(
    find("histogram-says"),
    count === 0 ? "From upload to result, in ms" : `From upload to result, in ms: the newest ${count.toLocaleString("en")}`,
  );
  const most = Math.max(...histogram.map((one) => one.count), 1);
  const list = find("histogram");
  if (list.children.length !== histogram.length) list.replaceChildren(...histogram.map(() => column()));
  histogram.forEach((one, at) => {
    const from = at === 0 ? 0 : histogram[at - 1].to;
    const [filled, tick, said] = list.children[at].children;
    filled.style.setProperty("--share", one.count / most);
    list.children[at].classList.toggle("is-empty", one.count === 0);
    say(tick, one.to === null ? "more" : one.to >= 1000 ? `${one.to / 1000} s` : String(one.to));
    say(said, `${one.count} took ${one.to === null ? `more than ${duration(from)}` : `at most ${duration(one.to)}`}`);
    list.children[at].title = said.textContent;
  });
}

function column() {
  return make(
    "li",
    {},
    make("span", { class: "filled", "aria-hidden": "true" }),
    make("span", { class: "tick", "aria-hidden": "true" }),
    make("span", { class: "unseen" }),
  );
}
