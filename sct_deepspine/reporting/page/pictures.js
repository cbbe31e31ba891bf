// The pictures of a scan. What is seen of it: `scale` screen pixels a picture's pixel, the same row in the middle of both
// pictures, and a column of each. Outlines and pictures are scaled; points and names keep their size on the screen.
const pictures = document.getElementById("pictures");
const view = { entry: null, scale: 1, row: 0, panels: [] }, shown = { points: true, masks: true };
const namesMm = { sagittal: 24, coronal: 30 }, roomPx = 78, namePx = 7.2, linePx = 15;
const make = (name, attributes = {}, ...content) => {
  const svg = ["svg", "g", "image", "path", "circle", "text"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== false && value != null) node.setAttribute(key, value);
  node.append(...content);
  return node;
};
// A disc as it is shown: where, in what words, and how sure.
function shownDiscs(entry) {
  return [...draftOf(entry).discs].sort(byValue).map((disc) => {
    const own = entry.discs.find((other) => other.value === disc.value && isAt(other.world_mm, disc.world_mm));
    const edit = own ? "" : disc.edit || "corrected";
    return { value: disc.value, name: nameOf(disc.value, entry), edit, confidence: own?.confidence ?? null, interpolated: own?.interpolated ?? false, ...placeOf(entry, disc) };
  });
}
const colourOf = (disc) => disc.edit ? "#4cc9f0" : disc.interpolated ? "#f1a33c" : disc.confidence < 0.5 ? "#ff6b6b" : "#6fdc8c";

function makePanel(entry, kind) {
  const coronal = kind === "coronal", width = coronal ? entry.coronal_width : entry.width;
  const panel = { kind, width, column: 0, svg: make("svg"), scaled: make("g"), masks: make("g"), over: make("g") };
  panel.scaled.append(make("image", { x: -0.5, y: -0.5, width, height: entry.height,
    href: "data:image/png;base64," + (coronal ? entry.coronal_picture : entry.picture) }), panel.masks);
  for (const part of entry.structures) {
    if (part[kind]) panel.masks.append(make("path", { d: part[kind], class: `outline ${part.kind}${part.unsure ? " unsure" : ""}` }));
  }
  panel.svg.append(panel.scaled, panel.over);
  const { svg } = panel;
  svg.onwheel = (event) => {
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0015), panel, event.clientX - box.left, event.clientY - box.top);
  };
  svg.onpointerdown = (event) => {
    if (event.button === 1) return;
    svg.setPointerCapture(event.pointerId);
    svg.onpointermove = (moved) => {
      if (event.button === 2) setWindow(grey.width + moved.movementX / 300, grey.level - moved.movementY / 400);
      else { panel.column -= moved.movementX / view.scale; view.row -= moved.movementY / view.scale; draw(); }
    };
    svg.onpointerup = svg.onpointercancel = () => { svg.onpointermove = null; };
  };
  svg.oncontextmenu = (event) => event.preventDefault();
  if (!coronal) svg.ondblclick = (event) => perform(addDisc(entry, draftOf(entry), place(panel, event)));
  return panel;
}
function place(panel, event) {
  const box = panel.svg.getBoundingClientRect();
  return { row: +((event.clientY - box.top - box.height / 2) / view.scale + view.row).toFixed(1),
    column: +((event.clientX - box.left - box.width / 2) / view.scale + panel.column).toFixed(1) };
}
function fit(entry) {
  if (!entry || !view.panels.length) return;
  // What is far in front of and behind the discs is left out of the view, and there is room for names.
  const columns = entry.discs.map((disc) => disc.column), mm = entry.pixel_mm;
  for (const panel of view.panels) {
    panel.first = panel.kind === "coronal" ? 0 : Math.max(Math.min(...columns, entry.width) - 60 / mm, 0);
    panel.last = panel.kind === "coronal" ? panel.width : Math.min(Math.max(...columns, 0) + 75 / mm, entry.width);
    if (panel.last <= panel.first) Object.assign(panel, { first: 0, last: panel.width });
    panel.column = (panel.first + panel.last) / 2;
  }
  const across = view.panels.reduce((sum, panel) => sum + panel.last - panel.first, 0);
  const { width, height } = pictures.getBoundingClientRect(), names = view.panels.length > 1 ? roomPx : 0;
  view.scale = Math.max(Math.min(height / entry.height, (width - names) / across), 0.1);
  view.row = (entry.height - 1) / 2;
  const spare = Math.max(width - names - across * view.scale, 0) / view.panels.length;
  for (const panel of view.panels) {
    const extra = panel.kind === "coronal" ? names : 0;
    panel.svg.style.width = `${(panel.last - panel.first) * view.scale + extra + spare - 1}px`;
    panel.column += extra / 2 / view.scale;
  }
  draw();
}
function zoom(factor, panel = null, x = 0, y = 0) {
  const before = view.scale;
  view.scale = Math.max(0.2, Math.min(before * factor, 60));
  if (panel) {
    const gain = 1 / before - 1 / view.scale;
    panel.column += (x - panel.svg.clientWidth / 2) * gain;
    view.row += (y - panel.svg.clientHeight / 2) * gain;
  }
  draw();
}
function showPicture(entry) {
  if (view.entry === entry) return draw();
  view.entry = entry;
  view.panels = entry.picture ? [makePanel(entry, "sagittal")] : [];
  if (entry.coronal_picture) view.panels.push(makePanel(entry, "coronal"));
  pictures.replaceChildren(...view.panels.map((panel) => panel.svg));
  fit(entry);
}
function blend(list, at) {
  const top = Math.max(0, Math.min(Math.floor(at), list.length - 2)), share = at - top;
  return list[top].map((value, axis) => value * (1 - share) + list[top + 1][axis] * share);
}
// Where names go that would lie on each other: each as near as can be to its own line, none nearer than a step.
function apart(wanted, step) {
  const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b]), out = [...wanted];
  for (let round = 0; round < 60; round += 1) {
    for (let n = 1; n < order.length; n += 1) {
      const push = (step - (out[order[n]] - out[order[n - 1]])) / 2;
      if (push > 0) { out[order[n]] += push; out[order[n - 1]] -= push; }
    }
  }
  return out;
}
function draw() {
  const { entry, scale } = view;
  const discs = view.panels.length && shown.points ? shownDiscs(entry) : [];
  for (const panel of view.panels) {
    const width = panel.svg.clientWidth, height = panel.svg.clientHeight, coronal = panel.kind === "coronal";
    const left = width / 2 - scale * panel.column, top = height / 2 - scale * view.row;
    panel.scaled.setAttribute("transform", `translate(${left} ${top}) scale(${scale})`);
    panel.masks.style.display = shown.masks ? "" : "none";
    const [start, end] = coronal ? ["R", "L"] : ["P", "A"], inset = 10;
    panel.over.replaceChildren(make("text", { x: inset, y: 20, class: "side" }, start),
      make("text", { x: width - inset, y: 20, class: "side", "text-anchor": "end" }, end));
    const away = namesMm[panel.kind] / entry.pixel_mm * scale;
    const spots = discs.map((disc) => coronal ? blend(entry.coronal_places, disc.row) : [disc.row, disc.column])
      .map(([row, column]) => ({ x: left + scale * column, y: top + scale * row }));
    const lines = apart(spots.map(({ y }) => y), linePx);
    discs.forEach((disc, index) => {
      const { x, y } = spots[index], stroke = colourOf(disc), name = titleOf(disc.value, entry), long = name.length * namePx;
      const side = coronal ? 1 : -1, line = lines[index];
      const at = coronal ? Math.min(x + away, width - long - 4) : Math.max(x - away, long + 4);
      panel.over.append(make("path", { class: "lead", stroke, d: `M${x + side * 8} ${y}L${at - side * 14} ${y}L${at - side * 3} ${line}` }),
        coronal ? make("path", { class: "mark", stroke, d: `M${x - 5} ${y}h10M${x} ${y - 5}v10` }) : discCircle(panel, disc, x, y, stroke),
        make("text", { x: at, y: line + 4.5, fill: stroke, "text-anchor": coronal ? "start" : "end", "font-weight": disc.value === chosen ? 700 : null }, name));
    });
  }
}
function discCircle(panel, disc, x, y, stroke) {
  const circle = make("circle", { cx: x, cy: y, r: 6, stroke, "data-value": disc.value, class: disc.value === chosen ? "chosen" : "" });
  const { entry } = view;
  circle.onpointerdown = (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    chosen = disc.value;
    circle.setPointerCapture(event.pointerId);
    circle.onpointermove = (moved) => {
      const box = panel.svg.getBoundingClientRect();
      circle.setAttribute("cx", moved.clientX - box.left);
      circle.setAttribute("cy", moved.clientY - box.top);
      circle.moved = place(panel, moved);
      const { refused } = moveDisc(entry, draftOf(entry), disc.value, circle.moved);
      circle.setAttribute("stroke", refused ? "#ff3b3b" : stroke);
      say(refused ?? "", Boolean(refused));
    };
    circle.onpointerup = () => {
      if (circle.moved) perform(moveDisc(entry, draftOf(entry), disc.value, circle.moved)); else show();
    };
    circle.onpointercancel = () => { say(""); show(); };
  };
  circle.ondblclick = (event) => event.stopPropagation();
  return circle;
}
const grey = {}, startWidth = 0.85, startLevel = 0.43;
function setWindow(width, level) {
  grey.width = Math.max(0.05, Math.min(width, 1.5));
  grey.level = Math.max(0, Math.min(level, 1));
  document.getElementById("window-width").value = grey.width;
  document.getElementById("window-level").value = grey.level;
  for (const node of document.querySelectorAll("#window feFuncR, #window feFuncG, #window feFuncB")) {
    node.setAttribute("slope", 1 / grey.width);
    node.setAttribute("intercept", 0.5 - grey.level / grey.width);
  }
}
const resetWindow = () => setWindow(startWidth, startLevel);
function toggle(what) {
  shown[what] = !shown[what];
  document.getElementById(what).setAttribute("aria-pressed", shown[what]);
  draw();
}

// Pictures that lie beside the page come when they are wanted; those of the next scans beforehand, and old ones go.
const heavy = ["picture", "coronal_picture", "structures", "row_origins", "coronal_places", "canal_points"], loaded = [], mostLoaded = 30;
window.showPictures = (script, content) => {
  const entry = entries.find((one) => one.script === script);
  if (!entry) return;
  Object.assign(entry, content, { isReady: true });
  loaded.push(entry);
  while (loaded.length > mostLoaded && loaded[0] !== entries[current]) {
    const old = loaded.shift();
    for (const name of heavy) delete old[name];
    old.isReady = old.isAsked = false;
    if (view.entry === old) view.entry = null;
  }
  if (entry === entries[current]) show();
};
function fetchPictures(entry) {
  if (!entry || !entry.script || entry.isReady || entry.isAsked || entry.isLost) return;
  entry.isAsked = true;
  const node = make("script", { src: entry.script });
  node.onload = () => node.remove();
  node.onerror = () => { node.remove(); entry.isAsked = false; entry.isLost = true; if (entry === entries[current]) show(); };
  document.head.append(node);
}
const isReady = (entry) => !entry.script || entry.isReady;
