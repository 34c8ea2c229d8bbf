// What somebody would stumble over who does not see the page, or not well; a sentence each. Colours as WCAG 2.2 counts
// them (1.4.3, 1.4.11), sizes by 2.5.8.
() => {
  const found = [];
  const nameOf = (element) => {
    const words = (element.getAttribute("aria-label") ?? element.textContent ?? "").trim().slice(0, 40);
    return `<${element.localName}${element.id && `#${element.id}`} class="${element.getAttribute("class") ?? ""}"> ${JSON.stringify(words)}`;
  };
  const isSeen = (element) => {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return false;
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1;
  };

  const numbers = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    const scale = colour.startsWith("color(") ? 1 : 255;
    return { rgb: [red / scale, green / scale, blue / scale], alpha };
  };
  const over = (front, back) => front.rgb.map((one, at) => one * front.alpha + back[at] * (1 - front.alpha));
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.push(numbers(getComputedStyle(one).backgroundColor));
      if (layers.at(-1).alpha === 1) break;
    }
    return layers.reverse().reduce((back, layer) => over(layer, back), [1, 1, 1]);
  };
  const light = (rgb) => {
    const [red, green, blue] = rgb.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };

  // Text against what is behind it.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !isSeen(element) || element.closest(":disabled, canvas, .drop")) continue;
    const style = getComputedStyle(element);
    // On the board, which is black.
    const back = element.closest(".board") ? [0, 0, 0] : behind(element);
    const ratio = contrast(over(numbers(style.color), back), back);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`text has a contrast of ${ratio.toFixed(2)}: ${nameOf(element)}`);
  }

  // What can be used: where it ends, and how large it is.
  for (const element of document.querySelectorAll("button, input, .button")) {
    if (!isSeen(element) || element.disabled) continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.borderTopWidth) > 0 && numbers(style.borderTopColor).alpha > 0) {
      const ratio = contrast(over(numbers(style.borderTopColor), behind(element.parentElement)), behind(element.parentElement));
      if (ratio < 3) found.push(`its edge has a contrast of ${ratio.toFixed(2)}: ${nameOf(element)}`);
    }
    const box = element.getBoundingClientRect();
    if (box.height < 24 || box.width < 24) found.push(`is ${box.width.toFixed(0)} by ${box.height.toFixed(0)} pixels: ${nameOf(element)}`);
  }

  // How it is put together.
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) found.push(`two elements have the id ${id}`);
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) found.push(`${name} names ${id}, which is not there: ${nameOf(element)}`);
      }
    }
  }
  for (const image of document.querySelectorAll("img:not([alt])")) found.push(`has no alternative text: ${nameOf(image)}`);
  for (const element of document.querySelectorAll("[tabindex]")) if (element.tabIndex > 0) found.push(`is out of the order of Tab: ${nameOf(element)}`);
  let before = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!isSeen(heading) && !heading.classList.contains("unseen")) continue;
    const level = Number(heading.localName[1]);
    if (level > before + 1) found.push(`a heading skips a level: ${nameOf(heading)}`);
    before = level;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("there is not one h1");
  if (!document.documentElement.lang) found.push("the page has no language");
  return found;
}
