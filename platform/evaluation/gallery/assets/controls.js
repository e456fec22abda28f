// Keys and controls, and the start of the page.

function stageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [x, y] = KEY_MOVES[event.key] ?? [];
  if (x !== undefined && state.zoom > 1) moveBy(x / 8, y / 8);
  else if (x && !isSide()) splitAt(state.split + 2 * x);
  else if (event.key === "+" || event.key === "=") zoomBy(STEP);
  else if (event.key === "-") zoomBy(1 / STEP);
  else if (event.key === "0") zoomBy(0);
  else if (event.key === "n" || event.key === "p") stepAndTell(event.key === "n" ? 1 : -1);
  else return;
  event.preventDefault();
}

function listKey(event) {
  const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10,
    Home: -Infinity, End: Infinity }[event.key]; // prettier-ignore
  if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  step(by);
}

function stepAndTell(by) {
  step(by);
  announce();
}

function connect() {
  const on = (id, kind, action) => byId(id).addEventListener(kind, action);
  for (const id of ["dataset", "criterion", "direction"]) on(id, "change", sortAndFilter);
  for (const id of ["left", "right", "errors"]) on(id, "change", show);
  for (const radio of document.getElementsByName("view")) radio.addEventListener("change", changeView);
  on("previous", "click", () => stepAndTell(-1));
  on("next", "click", () => stepAndTell(1));
  on("in", "click", () => zoomBy(STEP));
  on("out", "click", () => zoomBy(1 / STEP));
  on("fit", "click", () => zoomBy(0));
  on("split", "input", (event) => splitAt(Number(event.target.value)));
  on("list", "keydown", listKey);
  on("stage", "keydown", stageKey);
  on("stage", "pointerdown", startDrag);
  on("stage", "pointermove", continueDrag);
  on("stage", "pointerup", endDrag);
  on("stage", "pointercancel", endDrag);
  on("stage", "dblclick", doubleClick);
  stage.addEventListener("wheel", wheel, { passive: false });
}

function doubleClick(event) {
  const frame = event.target.closest(".frame");
  if (frame) zoomBy(2, pointIn(frame, event));
}

function changeView() {
  document.body.className = document.querySelector("[name=view]:checked").value;
  show();
}

/** The criteria of the list, its datasets, its items by number of the image, and its order. */
const known = { criteria: criteria(), items: images.map(makeItem), listed: [], frame: 0, turn: 0 };
known.datasets = fillOrder(known.criteria);
document.body.className = "slider";
connect();
sortAndFilter();
