// Compares the images of a gallery.
//
// The page holds every image as a data: URL in an inert <script> block, and what is known of it in
// another. A URL becomes an <img> only while it is shown, so a page of hundreds decodes a few.

const MOST_ZOOM = 32;
const STEP = Math.SQRT2;
const KEY_MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const list = byId("list");
const slider = document.querySelector("#slider .frame");
const images = [...document.querySelectorAll("script.image")].map((block, number) => ({
  ...JSON.parse(block.textContent),
  number,
}));

/** What is shown: the image, the point of it at the centre of every frame, in 0..1, and how large. */
const state = { image: null, x: 0.5, y: 0.5, zoom: 1, split: 50 };

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isSide = () => document.body.className === "side";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function written(value) {
  if (value == null) return "–";
  return value.toFixed(Math.abs(value) >= 10 ? 3 : 4);
}
