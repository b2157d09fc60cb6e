// What a reader of the screen would miss: names, labels, headings, landmarks, doubled ids. Returns sentences.
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
  if (!document.documentElement.lang) wrong.push("the page names no language");
  if (!document.title.trim()) wrong.push("the page has no title");
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) wrong.push(`the page is ${wide} px wider than the screen`);
  return wrong;
}
