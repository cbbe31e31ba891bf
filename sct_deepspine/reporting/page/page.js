// The list, the facts beside the pictures, keys and buttons.
let current = 0, chosen = null, filter = "all", offered = null;
const filters = { all: () => true, unrated: (entry) => !ratingOf(entry), corrected: isCorrected, failed: (entry) => Boolean(entry.error) || ratingOf(entry) === "fail", doubtful: (entry) => entry.doubtful || ratingOf(entry) === "doubt" };
const listed = () => entries.filter((entry) => filters[filter](entry));
const element = (id) => document.getElementById(id);
function say(text, isRefusal = false) {
  element("message").textContent = text;
  element("message").classList.toggle("refused", isRefusal);
}
// Take the outcome of an edit: keep it, say why it can't be, or ask how to go on.
function perform(result) {
  closeOffer();
  if (result.refused) say(result.refused, true);
  else if (result.offers) offer(result);
  else {
    setDraft(entries[current], result.draft, result.title);
    chosen = result.chosen;
    say("");
  }
  show();
}
function offer({ question, offers }) {
  offered = offers;
  element("offer").replaceChildren(make("p", {}, question), ...offers.map(({ title, run }, n) => {
    const button = make("button", {}, make("kbd", {}, n + 1), ` ${title}`);
    button.onclick = () => perform(run());
    return button;
  }), (() => {
    const button = make("button", {}, make("kbd", {}, "Esc"), " leave it as it was");
    button.onclick = () => { closeOffer(); show(); };
    return button;
  })());
  element("offer").hidden = false;
}
function closeOffer() { offered = null; element("offer").hidden = true; }

const edits = {
  nudge: (row, column) => () => {
    const entry = entries[current], disc = draftOf(entry).discs.find((one) => one.value === chosen);
    if (!disc) return perform({ refused: "Choose a disc first (j and k, or click it)." });
    const at = placeOf(entry, disc);
    perform(moveDisc(entry, draftOf(entry), chosen, { row: +(at.row + row).toFixed(2), column: +(at.column + column).toFixed(2) }));
  },
  renumber: (scope, step) => () => perform(renumber(entries[current], draftOf(entries[current]), chosen, scope, step)),
  add: () => perform(addNext(entries[current], draftOf(entries[current]), chosen)),
  remove: () => perform(chosen === null ? { refused: "Choose a disc first (j and k, or click it)." } : removeDisc(entries[current], draftOf(entries[current]), chosen)),
  absent: () => perform(markAbsent(entries[current], draftOf(entries[current]), chosen)),
  accept: () => {
    const entry = entries[current], wrong = isAccepted(entry) ? [] : faultsOf(entry, draftOf(entry));
    if (wrong.length) return perform({ refused: `The discs can't be accepted as they are. ${wrong[0]}` });
    setAccepted(entry);
    finish();
  },
  reset: () => {
    if (!workOf(entries[current]).discs) return perform({ refused: "There are no edits of this scan to remove." });
    resetDraft(entries[current]);
    chosen = null;
    finish();
  },
};
// By key, the first of what was done on other versions of the image; by button, the one beside it.
const withEarlier = (act) => (key = earlierWork(entries[current])[0]) => {
  if (!key) return perform({ refused: "There is no work on another version of this image." });
  act(entries[current], key);
};
const earlier = {
  takeOver: withEarlier((entry, key) => {
    if (!canTakeOver(entry, key)) return perform({ refused: "It can't be taken over: the other version has another voxel grid." });
    takeOver(entry, key);
    chosen = null;
    finish();
  }),
  discard: withEarlier((entry, key) => { discard(key); finish(); }),
};
function finish() {
  closeOffer();
  say("");
  show();
}
const canEdit = (entry) => Boolean(entry.width) && isReady(entry);
const withPicture = (act) => () => {
  const entry = entries[current];
  if (canEdit(entry)) act();
  else if (!entry.width) say("This scan has no picture.", true);
  else if (entry.isLost) say("The pictures of this scan are not beside the page.", true);
  else say("The pictures are still loading: try again when they are shown.", true);
};
function goBack(step, word) {
  if (!step) return say(`There is nothing to ${word}.`, true);
  const done = word === "undo" ? "undone" : "redone";
  if (step.isStale) return perform({ refused: `“${step.title}” can't be ${done}: another window has changed the scan since.` });
  const keys = Object.keys(step.changes), at = entries.findIndex((entry) => keys.includes(entry.key));
  if (at >= 0 && !keys.includes(entries[current].key)) { current = at; if (!filters[filter](entries[at])) filter = "all"; }
  chosen = null;
  closeOffer();
  show();
  say(`${word === "undo" ? "Undone" : "Redone"}: ${step.title}${at >= 0 ? ` (${entries[current].label})` : ""}`);
}
function go(step, wanted = filters[filter]) {
  for (let at = current + step; at >= 0 && at < entries.length; at += step) {
    if (wanted(entries[at])) return open(at);
  }
  say(step > 0 ? "This is the last scan of the list." : "This is the first scan of the list.");
}
function open(at) {
  current = at;
  chosen = null;
  closeOffer();
  say("");
  show();
}
function choose(step) {
  const draft = draftOf(entries[current]);
  const values = [...draft.discs.map((disc) => disc.value), ...draft.absent, ...gapsOf(draft)].sort((a, b) => a - b);
  const at = chosen === null ? (step > 0 ? 0 : values.length - 1) : values.indexOf(chosen) + step;
  chosen = values.length ? values[(at + values.length) % values.length] : null;
  show();
}
function rate(rating) { setRating(entries[current], rating); say(""); show(); }
function save() {
  const count = saveFile(), sentence = `Saved ${count} scan${count === 1 ? "" : "s"} to corrections.json.`;
  const wrong = entries.filter((entry) => problemsOf(entry).length), [first] = wrong;
  if (first) say(`${sentence} ${wrong.length} can't be applied yet: ${first.label}: ${problemsOf(first)[0]}`, true);
  else say(sentence);
  show();
}
async function load(file) {
  try {
    const { here, other, replaced } = readFile(await file.text());
    chosen = null;
    show();
    say(`Loaded ${here} scan${here === 1 ? "" : "s"}.` + (replaced ? ` Corrections of ${replaced} were replaced; undo brings them back.` : "")
      + (other ? ` ${other} match no scan of this page; they are kept and saved again.` : ""));
  } catch (error) { say(`${file.name} can't be read: ${error.message}`, true); }
}
function nextFilter() {
  const names = Object.keys(filters);
  setFilter(names[(names.indexOf(filter) + 1) % names.length]);
}
function setFilter(name) {
  filter = name;
  const first = listed()[0];
  if (first && !filters[filter](entries[current])) current = entries.indexOf(first);
  chosen = null;
  closeOffer();
  show();
}

// List
const rows = entries.map((entry, index) => {
  const row = make("button", { title: entry.name });
  row.append(make("span"), make("span", { class: "name" }, entry.label), make("span", { class: "badge" }), make("span", { class: "number" }));
  row.onclick = () => open(index);
  return row;
});
function showList() {
  element("filters").replaceChildren(...Object.entries(filters).map(([name, test]) => {
    const button = make("button", { "aria-pressed": name === filter }, `${name} ${entries.filter(test).length}`);
    button.onclick = () => setFilter(name);
    return button;
  }));
  const seen = new Set(listed());
  entries.forEach((entry, index) => {
    const row = rows[index], [mark, , badge, number] = row.children, rating = ratingOf(entry) || "";
    row.hidden = !seen.has(entry);
    row.setAttribute("aria-current", index === current);
    mark.textContent = marks[rating] || "";
    mark.className = rating;
    const isWrong = problemsOf(entry).length > 0, news = isPending(entry) || isAccepted(entry) && !entry.corrected;
    badge.textContent = (isWrong ? "! " : "") + (isCorrected(entry) ? "✎" : "") + (isAccepted(entry) ? "✓" : "") + (earlierWork(entry).length ? "≠" : "");
    badge.title = [isWrong && "can't be applied as it is", isCorrected(entry) && (isPending(entry) ? "corrected here" : "corrected"), isAccepted(entry) && "accepted",
      earlierWork(entry).length && "there is work on another version of the image", news && unsaved.has(entry.key) && "not saved yet"].filter(Boolean).join(", ");
    number.textContent = entry.error ? "error" : entry.level_confidence.toFixed(2);
    number.className = `number ${entry.error ? "error" : entry.doubtful ? "low" : ""}`;
  });
  if (!element("list").children.length) element("list").append(...rows, make("p", { id: "none" }, "No scan is in this list."));
  element("none").hidden = seen.size > 0;
  rows[current]?.scrollIntoView({ block: "nearest" });
}
function showHead() {
  const done = entries.filter(isReviewed).length;
  element("progress").textContent = `${done} of ${entries.length} reviewed`;
  Object.assign(element("bar"), { max: Math.max(entries.length, 1), value: done });
  element("unsaved").textContent = storageFails ? "this browser can't keep your work: save often" : unsaved.size ? `${unsaved.size} not saved` : "";
  element("undo").disabled = !history.done.length;
  element("redo").disabled = !history.undone.length;
  element("undo").title = history.done.at(-1)?.title ?? "";
  element("redo").title = history.undone.at(-1)?.title ?? "";
}

// Facts
function action(title, key, act, attributes = {}) {
  const button = make("button", attributes, title, ...(key ? [" ", make("kbd", {}, key)] : []));
  button.disabled = Boolean(attributes.disabled);
  button.onclick = act;
  return button;
}
const line = (...content) => make("div", { class: "row" }, ...content);
function showFacts(entry) {
  const facts = element("facts"), at = facts.scrollTop, rating = ratingOf(entry);
  const parts = [make("h2", {}, entry.name), ...notices(entry), make("p", { class: rating || "quiet" }, rating ? `rated: ${rating}` : "not rated"),
    line(...Object.keys(marks).map((name) => action(name, name[0], () => rate(name), { "aria-pressed": rating === name })),
      ...(entry.discs.length ? [action("accept", "y", withPicture(edits.accept), { "aria-pressed": isAccepted(entry), title: "every disc is right as it is" })] : []))];
  if (entry.error) parts.push(make("p", { class: "error" }, entry.error));
  if (!entry.error) {
    parts.push(make("p", { class: entry.level_confidence < 0.5 ? "low" : "" }, `level confidence ${entry.level_confidence.toFixed(2)}`));
    for (const warning of entry.warnings) parts.push(make("p", { class: "low" }, warning));
  }
  if (canEdit(entry)) parts.push(...editFacts(entry));
  if (entry.width) parts.push(make("h3", {}, "discs"), discTable(entry));
  if (isReady(entry) && entry.structures.length) parts.push(...maskFacts(entry));
  facts.replaceChildren(...parts);
  facts.scrollTop = at;
}
function notices(entry) {
  const out = problemsOf(entry).map((sentence) => make("div", { class: "notice error" }, sentence));
  if (isOvertaken(entry)) out.push(make("div", { class: "notice" }, "The scan was labelled again after you corrected it. Your corrections are shown; “reset scan” shows the new labels."));
  for (const [n, key] of earlierWork(entry).entries()) {
    const { rating, discs } = work[key], fits = canTakeOver(entry, key);
    const what = [rating && `rated ${rating}`, discs && "corrected"].filter(Boolean).join(", ");
    out.push(make("div", { class: "notice" }, `Another version of this image was ${what || "worked on"}. It is kept apart. `,
      line(action("take over", n ? "" : "v", () => earlier.takeOver(key), { disabled: !fits, title: fits ? "" : "it has another voxel grid" }),
        action("discard", n ? "" : "g", () => earlier.discard(key)))));
  }
  return out;
}
function editFacts(entry) {
  const draft = draftOf(entry), isDisc = draft.discs.some((disc) => disc.value === chosen), none = chosen === null;
  const numbers = make("div", { class: "numbers" });
  Object.keys(scopes).forEach((scope, n) => {
    const off = scope === "all" ? !draft.discs.length : !isDisc;
    const button = (step, key) => action(step > 0 ? "+1" : "−1", key, edits.renumber(scope, step), { disabled: off, "aria-label": `${scopeNames[scope]} ${step > 0 ? "+1" : "−1"}` });
    numbers.append(make("span", {}, scopeNames[scope]), button(-1, 2 * n + 1), button(1, 2 * n + 2));
  });
  return [make("h3", {}, none ? "edit: no disc chosen" : `edit: ${titleOf(chosen, entry)}`),
    line(action("add", "n", edits.add), action("remove", "Del", edits.remove, { disabled: !isDisc }), action("not there", "e", edits.absent, { disabled: none })),
    line(...[["↑", "w", -1, 0], ["↓", "z", 1, 0], ["← back", "a", 0, -1], ["→ front", "x", 0, 1]].map(([title, key, row, column]) =>
      action(title, key, edits.nudge(row, column), { disabled: !isDisc }))),
    make("h3", {}, "renumber"), numbers,
    line(action("reset scan", "R", edits.reset, { disabled: !workOf(entry).discs, title: "remove all edits of this scan; undo brings them back" }))];
}
function discTable(entry) {
  const draft = draftOf(entry), table = make("table"), head = make("tr", {}, ...["", "disc", "conf.", ""].map((word) => make("th", {}, word)));
  table.append(head);
  const drawn = isReady(entry) && entry.row_origins.length ? shownDiscs(entry) : entry.discs.map((disc) => ({ ...disc, edit: "" }));
  const lines = [...drawn, ...draft.absent.map((value) => ({ value, gone: "not there" })), ...gapsOf(draft).map((value) => ({ value, gone: "missing" }))];
  for (const disc of lines.sort(byValue)) {
    const word = disc.gone || disc.edit || (disc.interpolated ? "interpolated" : ""), low = disc.gone === "missing" || disc.confidence !== null && disc.confidence < 0.5;
    const row = make("tr", { "data-value": disc.value, class: `${disc.value === chosen ? "chosen" : ""} ${disc.gone === "not there" ? "gone" : low ? "low" : ""}` },
      make("td", {}, disc.value), make("td", {}, nameOf(disc.value, entry)), make("td", {}, disc.confidence == null ? "" : disc.confidence.toFixed(2)),
      make("td", { class: disc.edit ? "edited" : "" }, word));
    row.onclick = () => { chosen = disc.value; show(); };
    table.append(row);
  }
  return table;
}
function maskFacts(entry) {
  const key = make("p"), names = (parts) => parts.map((part) => part.name).join(", ");
  for (const kind of ["cord", "canal", "vertebra", "disc"]) {
    if (entry.structures.some((part) => part.kind === kind)) key.append(make("span", {}, make("span", { class: `key ${kind}` }), kind), " ");
  }
  const unsure = entry.structures.filter((part) => part.unsure), unmeasured = entry.structures.filter((part) => !part.measured);
  const lines = [make("h3", {}, "Masks"), key];
  if (unsure.length) lines.push(make("p", { class: "low" }, `unsure (dashed): ${names(unsure)}`));
  if (unmeasured.length) lines.push(make("p", { class: "quiet" }, `not validated against true masks: ${names(unmeasured)}`));
  return lines;
}
function show() {
  showHead();
  showList();
  const entry = entries[current];
  if (!entry) return;
  fetchPictures(entry);
  element("masks").hidden = !isReady(entry) || !entry.structures.length;
  if (isReady(entry)) {
    showPicture(entry);
    for (const step of [1, 2, -1]) fetchPictures(entries[current + step]);
  } else {
    view.entry = null;
    view.panels = [];
    pictures.replaceChildren(make("p", {}, entry.isLost ? `The pictures (${entry.script}) are not beside the page. Was the scan labelled anew? Load the page again.` : "loading …"));
  }
  showFacts(entry);
}

// Themes, help, keys
function setTheme(name) {
  document.documentElement.dataset.theme = name;
}
function switchTheme() {
  const name = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  setTheme(name);
  try { localStorage.setItem("sct_deepspine:theme", name); } catch { /* then it is for this time only */ }
}
const wantsLight = window.matchMedia("(prefers-color-scheme: light)");
const ownTheme = () => { try { return localStorage.getItem("sct_deepspine:theme"); } catch { return null; } };
const followTheme = () => setTheme(ownTheme() || (wantsLight.matches ? "light" : "dark"));
wantsLight.onchange = followTheme;

const helpTexts = {
  "Scans": [["↓ ↑", "next, previous scan"], ["→", "next scan that is not reviewed"], ["q", "next filter"], ["p f d", "rate: pass, fail, doubt"], ["y", "accept as it is"],
    ["v g", "take over, discard work on another version"], ["u U", "undo, redo (Ctrl+Z, Ctrl+Y)"], ["s", "save all to corrections.json"], ["l", "load it again"], ["c", "ratings as CSV"]],
  "Discs": [["click, j k", "choose"], ["drag, w a z x", "move"], ["double click, n", "add"], ["Del", "remove"], ["e", "not there (fused)"],
    ["1 2", "renumber this one −1, +1"], ["3 4", "from here up −1, +1"], ["5 6", "from here down −1, +1"], ["7 8, − +", "all −1, +1"], ["R", "reset scan: remove its edits"]],
  "Pictures": [["wheel, i o", "zoom"], ["drag", "move the pictures"], ["0", "fit"], ["right drag", "window and level"], ["r", "reset window and level"], ["t m", "points, masks on and off"],
    ["b", "dark, light"], ["?", "this help"], ["Esc", "close"]],
};
element("keys").append(make("div", {}, ...Object.entries(helpTexts).map(([title, lines]) => make("section", {}, make("h3", {}, title),
  make("dl", {}, ...lines.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]))))));
const toggleHelp = () => { element("keys").hidden = !element("keys").hidden; };
element("keys").onclick = toggleHelp;

const keys = { p: () => rate("pass"), f: () => rate("fail"), d: () => rate("doubt"), y: withPicture(edits.accept),
  v: () => earlier.takeOver(), g: () => earlier.discard(), R: edits.reset,
  s: save, l: () => element("file").click(), c: saveTable, u: () => goBack(undo(), "undo"), U: () => goBack(redo(), "redo"),
  t: () => toggle("points"), m: () => toggle("masks"), b: switchTheme, q: nextFilter, "?": toggleHelp,
  i: withPicture(() => zoom(1.25)), o: withPicture(() => zoom(0.8)), 0: withPicture(() => fit(view.entry)), r: resetWindow,
  j: () => choose(1), k: () => choose(-1), n: withPicture(edits.add), e: withPicture(edits.absent), Delete: withPicture(edits.remove), Backspace: withPicture(edits.remove),
  w: withPicture(edits.nudge(-1, 0)), z: withPicture(edits.nudge(1, 0)), a: withPicture(edits.nudge(0, -1)), x: withPicture(edits.nudge(0, 1)),
  "+": withPicture(edits.renumber("all", 1)), "-": withPicture(edits.renumber("all", -1)),
  ArrowDown: () => go(1), ArrowUp: () => go(-1), ArrowRight: () => go(1, (entry) => !isReviewed(entry)) };
Object.keys(scopes).forEach((scope, n) => {
  keys[2 * n + 1] = withPicture(edits.renumber(scope, -1));
  keys[2 * n + 2] = withPicture(edits.renumber(scope, 1));
});
const withControl = { z: keys.u, y: keys.U, Z: keys.U, s: save };
const ofSlider = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"];
// CapsLock is not Shift, and a letter that Shift gives no other meaning is that letter.
function keyOf(event, known) {
  const isLetter = event.key?.length === 1, isLocked = isLetter && event.getModifierState("CapsLock");
  const key = !isLocked ? event.key : event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
  return isLetter && known === keys && !known[key] ? key.toLowerCase() : key;
}
document.onkeydown = (event) => {
  if (!entries.length || event.altKey) return;
  const isControl = event.ctrlKey || event.metaKey;
  if (event.target.type === "range" && ofSlider.includes(event.key)) return;
  const known = isControl ? withControl : keys, key = keyOf(event, known);
  let act = known[key];
  if (!element("keys").hidden) act = event.key === "Escape" || event.key === "?" ? toggleHelp : null;
  else if (offered && !isControl) {
    const one = offered[event.key - 1];
    act = event.key === "Escape" ? () => { closeOffer(); show(); } : one ? () => perform(one.run()) : ofSlider.includes(event.key) ? act : null;
  }
  if (!act) return;
  event.preventDefault();
  act();
};
const buttons = { "zoom-in": keys.i, "zoom-out": keys.o, fit: keys[0], "window-reset": resetWindow, points: keys.t, masks: keys.m, undo: keys.u, redo: keys.U,
  save, load: keys.l, table: saveTable, theme: switchTheme, help: toggleHelp };
for (const [id, act] of Object.entries(buttons)) element(id).onclick = (event) => { event.currentTarget.blur(); act(); };
for (const id of ["window-width", "window-level"]) element(id).oninput = () => setWindow(+element("window-width").value, +element("window-level").value);
for (const what of ["points", "masks"]) element(what).setAttribute("aria-pressed", true);
element("file").onchange = async (event) => {
  if (event.target.files[0]) await load(event.target.files[0]);
  event.target.value = "";
};
window.onresize = () => fit(view.entry);
window.onbeforeunload = (event) => {
  if (!unsaved.size) return;
  event.preventDefault();
  event.returnValue = "";
};
// Another window of the same page has changed something.
window.onstorage = (event) => {
  if (!event.key?.startsWith(store)) return;
  readRecord(event.key.slice(store.length), event.newValue);
  show();
};
document.body.classList.toggle("alone", entries.length === 1);
readStorage();
readHistory();
followTheme();
resetWindow();
show();
