// Points of a curve to drag. Click where there is none to add one; double-click one to remove it.
// Arrow keys move a point that has the focus, Delete removes it.
const WIDTH = 420, HEIGHT = 176, LEFT = 38, BOTTOM = 32, TOP = 8, RIGHT = 10;
const SVG = "http://www.w3.org/2000/svg";
const inside = (value) => Math.min(1, Math.max(0, Math.round(value * 100) / 100));
const toX = (x) => LEFT + x * (WIDTH - LEFT - RIGHT);
const toY = (y) => HEIGHT - BOTTOM - y * (HEIGHT - BOTTOM - TOP);

function render({ model, el }) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "evoae-draw", tabindex: -1 });
  let held = null;
  el.append(svg);

  function make(kind, looks, parent) {
    const made = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(looks)) made.setAttribute(name, value);
    parent?.append(made);
    return made;
  }
  function put(points) {
    model.set("points", points.map((point) => point.map(inside)));
    model.save_changes();
    draw();
  }
  function moved(number, x, y) { // a point stays between its neighbours
    const points = model.get("points").map((point) => [...point]);
    const low = number ? points[number - 1][0] : 0;
    const high = number < points.length - 1 ? points[number + 1][0] : 1;
    points[number] = [Math.min(high, Math.max(low, inside(x))), inside(y)];
    put(points);
  }
  function removed(number) {
    if (model.get("points").length > 1) put(model.get("points").filter((_, k) => k !== number));
  }
  function place(event) {
    const box = svg.getBoundingClientRect(), scale = WIDTH / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    return [(x - LEFT) / (WIDTH - LEFT - RIGHT), (HEIGHT - BOTTOM - y) / (HEIGHT - BOTTOM - TOP)];
  }
  function draw() {
    const points = model.get("points"), focused = svg.querySelector("circle:focus")?.dataset.number;
    svg.replaceChildren();
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      make("line", { x1: toX(0), x2: toX(1), y1: toY(share), y2: toY(share), class: "grid" }, svg);
      make("line", { x1: toX(share), x2: toX(share), y1: toY(0), y2: toY(1), class: "grid" }, svg);
      make("text", { x: toX(0) - 10, y: toY(share) + 4, "text-anchor": "end" }, svg).textContent = share;
      make("text", { x: toX(share), y: toY(0) + 17, "text-anchor": "middle" }, svg).textContent = share;
    }
    make("text", { x: toX(0.5), y: HEIGHT - 1, "text-anchor": "middle" }, svg).textContent = "share of the run";
    const [first, last] = [points[0], points[points.length - 1]];
    const line = [[0, first[1]], ...points, [1, last[1]]].map(([x, y]) => `${toX(x)},${toY(y)}`);
    make("polyline", { points: line.join(" "), class: "curve" }, svg);
    points.forEach(([x, y], number) => {
      const looks = { cx: toX(x), cy: toY(y), r: 7, tabindex: 0, "data-number": number, role: "slider" };
      const words = `Point ${number + 1}: ${x}, ${y}`;
      const dot = make("circle", { ...looks, "aria-label": words, "aria-valuenow": y }, svg);
      make("title", {}, dot).textContent = `${words}. Drag it; double-click removes it.`;
    });
    if (focused !== undefined) svg.querySelector(`circle[data-number="${focused}"]`)?.focus();
  }
  svg.onpointerdown = (event) => {
    const dot = event.target.closest("circle");
    if (dot) {
      held = Number(dot.dataset.number);
    } else { // a new point, held at once
      const [x, y] = place(event), points = model.get("points");
      if (x < -0.02 || x > 1.02 || y < -0.05 || y > 1.05) return;
      held = points.filter((point) => point[0] <= x).length;
      put([...points.slice(0, held), [x, y], ...points.slice(held)]);
    }
    svg.setPointerCapture(event.pointerId);
    event.preventDefault();
    svg.querySelector(`circle[data-number="${held}"]`)?.focus();
  };
  svg.onpointermove = (event) => held !== null && moved(held, ...place(event));
  svg.onpointerup = svg.onpointercancel = () => (held = null);
  svg.ondblclick = (event) => {
    // the dot is asked for by its place: the pointer is captured by the picture
    const dot = document.elementsFromPoint(event.clientX, event.clientY).find((e) => e.tagName === "circle");
    if (dot) removed(Number(dot.dataset.number));
  };
  svg.onkeydown = (event) => {
    const number = event.target.dataset?.number;
    const steps = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 0.01], ArrowDown: [0, -0.01] };
    if (number === undefined) return;
    const [x, y] = model.get("points")[number];
    if (event.key === "Delete" || event.key === "Backspace") removed(Number(number));
    else if (steps[event.key]) moved(Number(number), x + steps[event.key][0], y + steps[event.key][1]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  model.on("change:points", draw);
  draw();
  return () => model.off("change:points", draw);
}
export default { render };
