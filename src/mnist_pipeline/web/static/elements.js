// Elements of the page. What a server says becomes text and attributes, and is never read as HTML.

export const find = (id) => document.getElementById(id);

/** An element with attributes, and children that are elements or text; null and undefined are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set a text only where it is another: a live region is read out at each change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Let an element have these children in this order; those that are there already stay untouched. */
export function arrange(parent, children) {
  children.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

/** Arrow keys, Home and End move the focus inside a list, which is one stop of the Tab key. */
export function rove(list, selector) {
  const all = () => [...list.querySelectorAll(selector)];
  const settle = (chosen) => all().forEach((one) => (one.tabIndex = one === chosen ? 0 : -1));
  list.addEventListener("focusin", (event) => {
    const one = event.target.closest(selector);
    if (one) settle(one);
  });
  list.addEventListener("keydown", (event) => {
    const ones = all();
    const at = ones.indexOf(event.target.closest(selector));
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: ones.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    ones[Math.min(Math.max(to, 0), ones.length - 1)].focus();
  });
  /** After its children have changed: one of them must be a stop. */
  return () => {
    const ones = all();
    settle(ones.find((one) => one.contains(document.activeElement)) ?? ones.find((one) => one.tabIndex === 0) ?? ones[0]);
  };
}
