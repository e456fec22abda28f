// The list of images: sorting, filtering, choosing.

/** Every metric of every version, and its difference to that of each version before it. */
function criteria() {
  const found = [];
  const versions = new Set(images.flatMap((image) => Object.keys(image.metrics)));
  const metrics = new Set(
    images.flatMap((image) => Object.values(image.metrics).flatMap(Object.keys)),
  );
  for (const metric of metrics) {
    const of = (version) => (image) => image.metrics[version]?.[metric] ?? null;
    const earlier = [];
    for (const version of versions) {
      found.push({ metric, label: version, value: of(version) });
      for (const other of earlier) {
        const value = (image) => difference(of(version)(image), of(other)(image));
        found.push({ metric, label: `${version} minus ${other}`, value });
      }
      earlier.push(version);
    }
  }
  return found;
}

const difference = (first, second) => (first == null || second == null ? null : first - second);

function fillOrder(found) {
  const groups = Map.groupBy(found, (criterion) => criterion.metric);
  for (const [metric, members] of groups) {
    const options = members.map((criterion) =>
      element("option", { value: found.indexOf(criterion) }, `${metric}: ${criterion.label}`),
    );
    byId("criterion").append(element("optgroup", { label: metric }, ...options));
  }
  byId("criterion").append(element("option", { value: "name" }, "name"));
  byId("criterion").selectedIndex = Math.max(0, found.findIndex(({ label }) => label !== "rainy"));

  const datasets = [...new Set(images.map((image) => image.dataset))];
  byId("dataset").append(
    element("option", { value: "" }, "all"),
    ...datasets.map((name, number) => element("option", { value: number + 1 }, name)),
  );
  byId("dataset-label").hidden = datasets.length < 2;
  return datasets;
}

function makeItem(image) {
  const thumbnail = element("img", { src: dataOf(image.thumbnail), alt: "" });
  const item = element("li", { id: `image-${image.number}` }, thumbnail);
  item.append(element("b", { title: image.key }, image.key), element("span"));
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", "false");
  item.addEventListener("click", () => choose(image));
  return item;
}

function sortAndFilter() {
  const criterion = known.criteria[byId("criterion").value];
  const direction = Number(byId("direction").value);
  const dataset = known.datasets[byId("dataset").value - 1];
  byId("direction").disabled = !criterion;
  const compare = criterion
    ? (a, b) => compareValues(criterion.value(a), criterion.value(b), direction) || a.number - b.number
    : (a, b) => a.key.localeCompare(b.key, undefined, { numeric: true }) || a.number - b.number;
  known.listed = images
    .filter((image) => dataset === undefined || image.dataset === dataset)
    .sort(compare);
  list.replaceChildren(...known.listed.map((image) => known.items[image.number]));
  for (const image of known.listed) {
    const value = criterion ? written(criterion.value(image)) : image.dataset;
    known.items[image.number].lastChild.textContent = value;
  }
  choose(known.listed.includes(state.image) ? state.image : known.listed[0]);
}

/** Images without a value come last in either direction. */
function compareValues(first, second, direction) {
  if (first == null || second == null) return (first == null) - (second == null);
  return direction * (first - second);
}

function choose(image) {
  if (!image) return;
  if (state.image) known.items[state.image.number].setAttribute("aria-selected", "false");
  const item = known.items[image.number];
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  reveal(item);
  const at = known.listed.indexOf(image);
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === known.listed.length - 1;
  if (image !== state.image) {
    state.image = image;
    describe(image);
    show();
  }
}

/** Scrolls the list, and only the list, as far as it takes to see an item. */
function reveal(item) {
  const [inner, outer] = [item, list].map((node) => node.getBoundingClientRect());
  list.scrollBy(
    Math.min(0, inner.left - outer.left) || Math.max(0, inner.right - outer.right),
    Math.min(0, inner.top - outer.top) || Math.max(0, inner.bottom - outer.bottom),
  );
}

function step(by) {
  const at = clamp(known.listed.indexOf(state.image) + by, 0, known.listed.length - 1);
  choose(known.listed[at]);
}

function announce() {
  const at = known.listed.indexOf(state.image) + 1;
  byId("status").textContent = `Image ${at} of ${known.listed.length}: ${state.image.key}`;
}
