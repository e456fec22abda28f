// Zoom, spot and divider, which all panels share.

/** Brings the state onto the page; the style sheet does the rest. */
function apply() {
  const half = 0.5 / state.zoom;
  state.x = clamp(state.x, half, 1 - half);
  state.y = clamp(state.y, half, 1 - half);
  for (const name of ["x", "y", "zoom"]) stage.style.setProperty(`--${name}`, state[name]);
  stage.style.setProperty("--split", `${state.split}%`);
  const frame = stage.querySelector(isSide() ? "#side .frame" : "#slider .frame");
  const pixel = frame ? (frame.clientWidth * state.zoom) / state.image.width : 1;
  stage.classList.toggle("zoomed", state.zoom > 1);
  stage.classList.toggle("pixels", pixel >= 3);
  byId("factor").textContent = `${state.zoom.toFixed(1)}×`;
  byId("in").disabled = state.zoom === MOST_ZOOM;
  byId("out").disabled = byId("fit").disabled = state.zoom === 1;
  byId("split").value = Math.round(state.split);
  const [left, right] = ["left", "right"].map((id) => byId(id).selectedOptions[0]?.textContent);
  byId("split").ariaValueText = `${Math.round(state.split)} % ${left}, the rest ${right}`;
}

/** Zooms; the spot under `point`, in 0..1 of a frame, stays where it is. */
function zoomBy(factor, point = { x: 0.5, y: 0.5 }) {
  const before = state.zoom;
  state.zoom = clamp(before * factor, 1, MOST_ZOOM);
  if (Math.abs(state.zoom - 1) < 0.01) state.zoom = 1;
  const moved = 1 / before - 1 / state.zoom;
  state.x += (point.x - 0.5) * moved;
  state.y += (point.y - 0.5) * moved;
  apply();
}

/** Moves the spot by parts of a frame. */
function moveBy(x, y) {
  state.x += x / state.zoom;
  state.y += y / state.zoom;
  apply();
}

function splitAt(percent) {
  state.split = clamp(percent, 0, 100);
  apply();
}

function pointIn(frame, event) {
  const box = frame.getBoundingClientRect();
  return { x: (event.clientX - box.x) / box.width, y: (event.clientY - box.y) / box.height };
}

/** Drags of one pointer move the divider or the spot; the distance of two pointers zooms. */
const drag = { frame: null, divider: false, pointers: new Map() };

function startDrag(event) {
  const frame = event.target.closest(".frame");
  if (!frame || event.button !== 0) return;
  const onDivider = event.target.id === "divider";
  drag.frame = frame;
  drag.divider = frame === slider && (onDivider || state.zoom === 1);
  drag.pointers.set(event.pointerId, pointIn(frame, event));
  frame.setPointerCapture(event.pointerId);
}

function continueDrag(event) {
  const before = drag.pointers.get(event.pointerId);
  if (!before) return;
  const now = pointIn(drag.frame, event);
  drag.pointers.set(event.pointerId, now);
  const other = [...drag.pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 0.01;
    zoomBy(distance(now) / distance(before), other);
  } else if (drag.divider) {
    splitAt(now.x * 100);
  } else {
    moveBy(before.x - now.x, before.y - now.y);
  }
}

function endDrag(event) {
  drag.pointers.delete(event.pointerId);
}

function wheel(event) {
  const frame = event.target.closest(".frame");
  if (!frame || !(event.ctrlKey || event.metaKey)) return; // a bare wheel scrolls the page
  event.preventDefault();
  zoomBy(2 ** (-event.deltaY / 200), pointIn(frame, event));
}
