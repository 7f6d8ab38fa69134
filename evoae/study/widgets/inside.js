// Pictures of pixels with titles and legends; and a small drawing of a network to choose a layer on.
const SVG = "http://www.w3.org/2000/svg";

function made(kind, looks, parent, text) {
  const svg = ["svg", "g", "rect", "text", "path"].includes(kind);
  const element = svg ? document.createElementNS(SVG, kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(looks)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function pictures({ model, el }) {
  el.classList.add("evoae-pictures");
  const heading = made("b", {}, el), grid = made("div", { class: "evoae-grid" }, el), words = made("p", {}, el);
  function draw() {
    const shown = model.get("shown");
    heading.textContent = shown.heading ?? "";
    words.textContent = shown.words ?? "";
    const panels = shown.pictures ?? [];
    while (grid.children.length > panels.length) grid.lastChild.remove();
    panels.forEach((each, number) => { // an image that is there stays until its next one is read
      const figure = grid.children[number] ?? made("figure", {}, grid);
      const caption = figure.querySelector("figcaption") ?? made("figcaption", {}, figure);
      const image = figure.querySelector("img") ?? made("img", {}, figure);
      const legend = figure.querySelector("div") ?? made("div", {}, figure);
      caption.textContent = each.title;
      const before = image.src;
      image.alt = each.title;
      image.hidden = !each.png;
      image.className = each.square ? "evoae-square" : "";
      if (each.png) image.src = URL.createObjectURL(new Blob([each.png], { type: "image/png" }));
      if (before) URL.revokeObjectURL(before);
      legend.replaceChildren();
      for (const [name, colour] of each.legend) {
        made("i", { style: `background: ${colour}` }, legend);
        made("span", {}, legend, name);
      }
      if (each.words) made("p", {}, legend, each.words);
    });
  }
  model.on("change:shown", draw);
  draw();
}

function network({ model, el }) {
  const WIDE = 64, HIGH = 76, svg = made("svg", { class: "evoae-network" }, el);
  function draw() {
    const layers = model.get("layers"), value = model.get("value");
    const focused = svg.contains(document.activeElement);
    const most = Math.max(1, ...layers.map(([, units]) => units));
    svg.setAttribute("viewBox", `0 0 ${WIDE * layers.length} ${HIGH + 34}`);
    svg.style.width = `${WIDE * layers.length}px`;
    svg.replaceChildren();
    layers.forEach(([name, units, zeros], number) => {
      const height = Math.max(8, HIGH * Math.sqrt(units / most)), x = WIDE * number + WIDE / 2;
      const top = (HIGH - height) / 2 + 4, next = layers[number + 1];
      if (next) {
        const there = Math.max(8, HIGH * Math.sqrt(next[1] / most)), far = x + WIDE - 9;
        const low = (HIGH - there) / 2 + 4, line = `M${x + 9},${top} L${far},${low} V${low + there} L${x + 9},${top + height}Z`;
        made("path", { d: line, class: "links" }, svg);
      }
      const can = number > 0; // the input has no weights
      const group = made("g", can ? { tabindex: 0, role: "button", "aria-pressed": name === value } : {}, svg);
      const share = `${(100 * zeros).toFixed(0)} %`;
      const says = `${name}: ${units} units${can ? `, ${share} of the weights into it are zero` : ""}`;
      group.setAttribute("aria-label", says);
      group.append(made("title", {}, null, says));
      made("rect", { x: x - 9, y: top, width: 18, height, class: can ? "full" : "input" }, group);
      if (can) made("rect", { x: x - 9, y: top, width: 18, height: height * zeros, class: "zero" }, group);
      if (name === value) made("rect", { x: x - 12, y: top - 3, width: 24, height: height + 6, class: "ring" }, group);
      made("text", { x, y: HIGH + 20 }, group, name);
      made("text", { x, y: HIGH + 31 }, group, can ? share : "");
      if (!can) return;
      const choose = () => (model.set("value", name), model.save_changes());
      group.onclick = choose;
      group.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        choose();
      };
    });
    if (focused) svg.querySelector("[aria-pressed=true]")?.focus();
  }
  model.on("change:layers change:value", draw);
  draw();
}

export default { render: (view) => (view.model.get("layers") ? network(view) : pictures(view)) };
