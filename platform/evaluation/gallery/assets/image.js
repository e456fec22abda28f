// The chosen image: its name, its metrics, and the panels that are shown.

const dataOf = (block) => byId(block).textContent;
const keyOf = (panel) => `${panel.error ? "error" : "image"}:${panel.name}`;
const titleOf = (panel) => (panel.error ? `error of ${panel.name}` : panel.name);

/** Name, metrics and coding, and what can be left and right of the divider. */
function describe(image) {
  byId("name").textContent = known.datasets.length > 1 ? `${image.dataset}: ${image.key}` : image.key;
  byId("coding").textContent = `${image.width} × ${image.height} px, ${image.coding}.`;
  const hasErrors = image.panels.some((panel) => panel.error);
  byId("legend").hidden = !hasErrors;
  byId("errors-label").hidden = !hasErrors;
  fillMetrics(image.metrics);
  const defaults = { left: image.panels[0], right: image.panels[1] ?? image.panels[0] };
  for (const [side, usual] of Object.entries(defaults)) {
    const select = byId(side);
    const before = select.value;
    select.replaceChildren(
      ...image.panels.map((panel) => element("option", { value: keyOf(panel) }, titleOf(panel))),
    );
    const kept = image.panels.some((panel) => keyOf(panel) === before);
    select.value = kept ? before : keyOf(usual);
  }
  const ratio = image.width / image.height;
  document.body.style.setProperty("--ratio", ratio);
}

function fillMetrics(metrics) {
  const names = [...new Set(Object.values(metrics).flatMap(Object.keys))];
  const head = ["", ...names].map((name) => element("th", { scope: "col" }, name));
  const rows = Object.entries(metrics).map(([version, values]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, version),
      ...names.map((name) => element("td", {}, written(values[name]))),
    ),
  );
  const table = document.querySelector("table");
  table.hidden = names.length === 0;
  table.tHead.replaceChildren(element("tr", {}, ...head));
  table.tBodies[0].replaceChildren(...rows);
}

/** Shows the chosen image with the next frame: of several choices in one frame only the last. */
function show() {
  if (!known.frame) known.frame = requestAnimationFrame(decodeAndShow);
}

/** Decodes what the view needs, and replaces what is shown once all of it is there. */
async function decodeAndShow() {
  known.frame = 0;
  const turn = ++known.turn;
  const { image } = state;
  const side = isSide();
  const panels = side ? sidePanels(image) : ["left", "right"].map(panelOf);
  const shown = panels.map((panel) =>
    element("img", { src: dataOf(panel.block), alt: `${titleOf(panel)}, ${image.key}`, draggable: false }),
  );
  await Promise.all(shown.map((img) => img.decode()));
  if (turn !== known.turn) return; // something else was chosen meanwhile
  if (side) showSide(panels, shown);
  else showSlider(panels, shown);
  apply();
}

const panelOf = (side) => state.image.panels.find((panel) => keyOf(panel) === byId(side).value);
const sidePanels = (image) => image.panels.filter((panel) => !panel.error || byId("errors").checked);

function showSlider(panels, shown) {
  for (const [at, id] of ["left", "right"].entries()) {
    const tag = element("span", { className: "tag", ariaHidden: "true" }, titleOf(panels[at]));
    byId(`${id}-half`).replaceChildren(shown[at], tag);
  }
}

/** One figure for each image, with its error map below it. */
function showSide(panels, shown) {
  const figures = new Map();
  for (const [at, panel] of panels.entries()) {
    const frame = element("div", { className: "frame" }, shown[at]);
    if (!panel.error) figures.set(panel.name, element("figure", {}, caption(panel), frame));
    else figures.get(panel.name).append(frame);
  }
  byId("side").replaceChildren(...figures.values());
}

function caption(panel) {
  const metrics = Object.entries(state.image.metrics[panel.name] ?? {});
  const values = metrics.map(([name, value]) => element("span", {}, `${name} ${written(value)}`));
  return element("figcaption", {}, element("div", {}, panel.name), ...values);
}
