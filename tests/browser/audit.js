// What some readers would miss: names, labels, headings, doubled ids, contrast, room to hit. Returns sentences.
() => {
  const wrong = [];
  const shown = (node) => node.checkVisibility({ checkVisibilityCSS: true }) && !node.closest("[aria-hidden=true]");
  const texts = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  const words = (node) => {
    const copy = node.cloneNode(true);
    copy.querySelectorAll("[aria-hidden=true]").forEach((each) => each.remove());
    return copy.textContent + [...copy.querySelectorAll("img[alt]")].map((each) => each.alt).join(" ");
  };
  const name = (node) => (
    node.getAttribute("aria-label")
    || (node.hasAttribute("aria-labelledby") && texts(node.getAttribute("aria-labelledby")))
    || words(node) || node.title || node.value || ""
  ).trim();
  const short = (node) => node.outerHTML.replace(/\s+/g, " ").slice(0, 140);
  for (const node of document.querySelectorAll("#content :is(button, a[href]), .sp-page :is(button, a[href])")) {
    if (shown(node) && !name(node)) wrong.push(`no name: ${short(node)}`);
  }
  for (const field of document.querySelectorAll(".sp-page :is(input:not([type=hidden], [type=submit]), select, textarea)")) {
    const labelled = field.labels?.length || field.getAttribute("aria-label") || field.getAttribute("aria-labelledby");
    if (shown(field) && !labelled) wrong.push(`no label: ${short(field)}`);
  }
  for (const image of document.querySelectorAll("img:not([alt])")) wrong.push(`no alt: ${short(image)}`);
  for (const drawing of document.querySelectorAll(".sp-page svg")) {
    if (!drawing.hasAttribute("aria-label") && !drawing.closest("[aria-hidden=true]")) wrong.push(`no name: ${short(drawing)}`);
  }
  for (const table of document.querySelectorAll(".sp-page table")) {
    if (!table.querySelector("th[scope]")) wrong.push(`no headings: ${short(table)}`);
  }
  const seen = new Set();
  for (const node of document.querySelectorAll(".sp-page [id]")) {
    if (seen.has(node.id)) wrong.push(`two have the id ${node.id}`);
    seen.add(node.id);
  }
  // Contrast of every text that is seen, by the formula of WCAG 2.2 (1.4.3): 4.5, or 3 for large text.
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      paint.clearRect(0, 0, 1, 1);
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const behind = (node) => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      const style = getComputedStyle(each);
      if (style.backgroundImage !== "none") return null;
      const layer = rgba(style.backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = new Map();
  const walker = document.createTreeWalker(document.querySelector(".sp-page") ?? document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || node.closest("svg, option, script, style, dialog:not([open])") || !shown(node)) continue;
    const style = getComputedStyle(node);
    const below = behind(node);
    if (!below || node.closest(":disabled")) continue;
    const opacity = (() => { let all = 1; for (let each = node; each; each = each.parentElement) all *= getComputedStyle(each).opacity; return all; })();
    const ink = rgba(style.color);
    const seen = over([...ink.slice(0, 3), ink[3] * opacity], below);
    const [dark, bright] = [light(seen), light(below)].sort((one, other) => one - other);
    const ratio = (bright + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const isIcon = node.classList.contains("material-symbols-outlined");  // 1.4.11
    const least = isIcon || size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < least) pale.set(`${node.className || node.localName}`, `pale (${ratio.toFixed(2)}): ${text.data.trim().slice(0, 40)} in ${short(node).slice(0, 80)}`);
  }
  wrong.push(...pale.values());
  for (const button of document.querySelectorAll(".sp-page :is(button, a.sp-button, a.sp-chip)")) {
    const box = button.getBoundingClientRect();
    if (shown(button) && (box.height < 24 || box.width < 24)) wrong.push(`too small to hit: ${short(button)}`);
  }
  if (!document.documentElement.lang) wrong.push("the page names no language");
  if (!document.title.trim()) wrong.push("the page has no title");
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) wrong.push(`the page is ${wide} px wider than the screen`);
  return wrong;
}
