// What a person did, by the key of the scan: kept in the browser, undone step by step, saved to one file and read back.
// work[key] is {name, image, rating, discs, absent, accepted, base}; what is missing was not touched.
const entries = JSON.parse(document.getElementById("entries").textContent);
const byKey = new Map(entries.map((entry) => [entry.key, entry]));
const store = `sct_deepspine:${identity}:`, marks = { pass: "✓", fail: "✗", doubt: "?" };
const work = {}, unsaved = new Set(), filed = new Set(), history = { done: [], undone: [] };
let storageFails = false;

function readStorage() {
  try {
    for (let n = 0; n < localStorage.length; n += 1) {
      const name = localStorage.key(n);
      if (name.startsWith(store)) readRecord(name.slice(store.length), localStorage.getItem(name));
    }
  } catch { storageFails = true; }
}
function readRecord(key, text) {
  delete work[key];
  unsaved.delete(key);
  if (!text) return;
  try {
    const record = JSON.parse(text);
    if (record.work) work[key] = record.work;
    if (record.saved) filed.add(key); else unsaved.add(key);
  } catch { /* what is no record of this page stays where it is */ }
}
function keep(key) {
  try {
    if (!work[key] && !unsaved.has(key)) localStorage.removeItem(store + key);
    else localStorage.setItem(store + key, JSON.stringify({ work: work[key], saved: !unsaved.has(key) }));
    storageFails = false;
  } catch { storageFails = true; }
}

const workOf = (entry) => work[entry.key] || {};
const draftOf = (entry) => workOf(entry).discs ? { discs: workOf(entry).discs, absent: workOf(entry).absent || [] } : ownDraft(entry);
const ratingOf = (entry) => workOf(entry).rating ?? entry.rating;
const isAccepted = (entry) => workOf(entry).accepted ?? (entry.accepted && !isPending(entry));
// Corrections that the labels do not have yet, and corrections of either kind.
const isPending = (entry) => Boolean(workOf(entry).discs) && !isSame(draftOf(entry), ownDraft(entry));
const isCorrected = (entry) => entry.corrected || isPending(entry);
const isReviewed = (entry) => Boolean(ratingOf(entry)) || isAccepted(entry) || isCorrected(entry);
// What keeps discs from being applied, and what of it a person corrected here.
function faultsOf(entry, draft) {
  if (!draft.discs.length) return ["The scan has no disc: add one, or reset the scan."];
  return [...wrongOf(entry, draft), ...gapsOf(draft).map((value) => `${titleOf(value, entry)} is missing: add it, or mark it as not there.`)];
}
const problemsOf = (entry) => isPending(entry) ? faultsOf(entry, draftOf(entry)) : [];
// The labels changed since they were corrected here: neither those nor these are the ones that the person saw.
const isOvertaken = (entry) => isPending(entry) && workOf(entry).base && workOf(entry).base !== baseOf(entry);
const baseOf = (entry) => JSON.stringify(ownDraft(entry));

// Change what is known of some scans, as one step that can be undone.
function change(title, changes) {
  const step = { title, changes: {} };
  for (const [key, after] of Object.entries(changes)) {
    const before = work[key], text = JSON.stringify(after);
    if (JSON.stringify(before) !== text) step.changes[key] = { before: JSON.stringify(before), after: text };
  }
  if (!Object.keys(step.changes).length) return;
  history.done.push(step);
  history.undone.length = 0;
  put(step, "after");
  keepHistory();
}
function put(step, side) {
  for (const [key, sides] of Object.entries(step.changes)) {
    if (sides[side]) work[key] = JSON.parse(sides[side]); else delete work[key];
    if (sides[side] || filed.has(key)) unsaved.add(key); else unsaved.delete(key);
    keep(key);
  }
}
// A step is passed over if a scan is not as the step left it: another window has changed it.
function stepBack(from, to, left, side) {
  const step = from.pop();
  if (!step) return null;
  const isStale = Object.entries(step.changes).some(([key, sides]) => JSON.stringify(work[key]) !== sides[left]);
  if (!isStale) { to.push(step); put(step, side); }
  keepHistory();
  return { ...step, isStale };
}
const undo = () => stepBack(history.done, history.undone, "after", "before");
const redo = () => stepBack(history.undone, history.done, "before", "after");

// The latest steps of either kind outlive a reload of the page in this window.
const stepsStore = `sct_deepspine.steps:${identity}`, mostSteps = 200, mostCharacters = 5e5;
const lengthOf = (step) => Object.entries(step.changes).reduce((sum, [key, { before = "", after = "" }]) => sum + key.length + before.length + after.length, 0);
function latest(steps) {
  let first = steps.length, room = mostCharacters;
  while (first > 0 && steps.length - first < mostSteps && (room -= lengthOf(steps[first - 1])) >= 0) first -= 1;
  return steps.slice(first);
}
function keepHistory() {
  const done = latest(history.done), undone = latest(history.undone);
  try { sessionStorage.setItem(stepsStore, JSON.stringify({ done, undone })); } catch { forgetHistory(); }
}
// Steps that are older than the work are not kept.
function forgetHistory() {
  try { sessionStorage.removeItem(stepsStore); } catch { /* then nothing was kept */ }
}
function readHistory() {
  try {
    const { done, undone } = JSON.parse(sessionStorage.getItem(stepsStore)) ?? {};
    if (Array.isArray(done) && Array.isArray(undone)) Object.assign(history, { done, undone });
  } catch { /* then there is nothing to undo */ }
}

function tidy(record) {
  const left = Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined));
  return left.rating === undefined && left.discs === undefined && left.accepted === undefined ? undefined : left;
}
const about = (entry) => ({ name: entry.name, image: entry.image });
function setRating(entry, rating) {
  const next = ratingOf(entry) === rating ? (entry.rating ? "" : undefined) : rating;
  change(next ? `rated ${next}` : "rating removed", { [entry.key]: tidy({ ...about(entry), ...workOf(entry), rating: next }) });
}
function setDraft(entry, draft, title) {
  const own = isSame(draft, ownDraft(entry)), discs = own ? undefined : draft.discs, absent = own ? undefined : draft.absent;
  const accepted = entry.accepted && !own ? false : undefined, base = own ? undefined : workOf(entry).base || baseOf(entry);
  change(title, { [entry.key]: tidy({ ...about(entry), ...workOf(entry), discs, absent, accepted, base }) });
}
function setAccepted(entry) {
  const accepted = !isAccepted(entry), draft = draftOf(entry), mine = isPending(entry);
  const kept = accepted || mine ? { discs: draft.discs, absent: draft.absent } : { discs: undefined, absent: undefined };
  const base = workOf(entry).base || baseOf(entry);
  change(accepted ? "accepted as it is" : "no longer accepted",
    { [entry.key]: tidy({ ...about(entry), ...workOf(entry), ...kept, base, accepted: accepted || (entry.accepted ? false : undefined) }) });
}
function resetDraft(entry) {
  change("all edits of the scan removed", { [entry.key]: tidy({ ...about(entry), ...workOf(entry), discs: undefined, absent: undefined, accepted: undefined, base: undefined }) });
}

// Work on another version of an entry's image: same name or path, other content.
const strangers = () => Object.keys(work).filter((key) => !byKey.has(key) && work[key]);
const isSameFile = (entry, record) => record.name === entry.name
  && (!record.image?.path || !entry.image.path || record.image.path === entry.image.path);
const earlierWork = (entry) => strangers().filter((key) => isSameFile(entry, work[key]));
const isSameGrid = (one, other) => JSON.stringify([one?.shape, one?.affine]) === JSON.stringify([other?.shape, other?.affine]);
const canTakeOver = (entry, key) => isSameGrid(work[key].image, entry.image);
function takeOver(entry, key) {
  const { rating, discs, absent, accepted } = work[key];
  change("work on the other version taken over", { [key]: undefined,
    [entry.key]: tidy({ ...about(entry), rating, discs, absent, accepted, base: discs ? baseOf(entry) : undefined }) });
}
const discard = (key) => change("work on the other version discarded", { [key]: undefined });

// Files.
// The number of vertebrae goes with the discs only while the lowest one is still that above the sacrum.
function spineOf(entry, discs) {
  const number = presacralOf(entry), lowest = Math.max(...discs.map((disc) => disc.value));
  return number !== 24 && lowest === number + 1 ? { presacral: number } : {};
}
function fileOf() {
  const scans = {};
  const keys = [...entries.map((entry) => entry.key), ...strangers()];
  for (const key of keys) {
    const { name, image, rating, discs, absent, accepted } = work[key] || {}, entry = byKey.get(key);
    const rated = rating ?? entry?.rating, isAgreed = accepted ?? (entry?.accepted && !discs);
    if (!work[key] && !rated && !isAgreed) continue;
    const all = discs || (isAgreed && entry ? ownDraft(entry).discs : null);
    scans[key] = { name: name ?? entry.name, image: image ?? entry.image,
      ...(all ? { discs: [...all].sort(byValue).map(({ value, world_mm, edit }) => edit ? { value, world_mm, edit } : { value, world_mm }), absent: absent ?? entry?.absent ?? [], ...spineOf(entry, all) } : {}),
      ...(rated !== undefined && (rated || rating === "") ? { rating: rated } : {}), ...(isAgreed ? { accepted: true } : accepted === false ? { accepted } : {}) };
  }
  return { format: 2, scans };
}
function download(name, text, type) {
  const href = URL.createObjectURL(new Blob([text], { type })), link = document.createElement("a");
  Object.assign(link, { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}
function saveFile() {
  const file = fileOf();
  download("corrections.json", JSON.stringify(file, null, 1) + "\n", "application/json");
  for (const key of [...unsaved]) { unsaved.delete(key); filed.add(key); keep(key); }
  return Object.keys(file.scans).length;
}
// No spreadsheet takes a name for a formula.
const quoted = (text) => `"${(/^[=@+-]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
function saveTable() {
  const rows = entries.filter(isReviewed).map((entry) => [quoted(entry.name), ratingOf(entry) || "", isAccepted(entry), isCorrected(entry),
    entry.level_confidence, quoted(entry.image.sha256 || "")].join(",") + "\n");
  download("ratings.csv", "scan,rating,accepted,corrected,level_confidence,sha256\n" + rows.join(""), "text/csv");
}
// The entry that a scan of a file is: the same key; else the same image; else, where no image is recorded, the same name.
function entryOf(key, scan) {
  if (byKey.has(key)) return byKey.get(key);
  const sha = scan.image?.sha256, fit = entries.filter((entry) => sha ? entry.image.sha256 === sha : entry.name === scan.name);
  const named = fit.filter((entry) => entry.name === scan.name);
  return fit.length === 1 ? fit[0] : named.length === 1 ? named[0] : null;
}
function scanOf(key, value) {
  const scan = Array.isArray(value) ? { discs: value.map((disc) => ({ ...disc, edit: "corrected" })) } : value;
  const number = (n) => { if (typeof n !== "number" || !Number.isFinite(n)) throw new Error("a number is missing"); return n; };
  const discs = scan.discs?.map((disc) => ({ value: number(disc.value), world_mm: [0, 1, 2].map((n) => number(disc.world_mm[n])), ...(disc.edit ? { edit: String(disc.edit) } : {}) }));
  return { name: String(scan.name ?? key), image: scan.image ?? {}, discs, absent: discs && (scan.absent ?? []).map(number),
    rating: scan.rating in marks || scan.rating === "" ? scan.rating : undefined, accepted: typeof scan.accepted === "boolean" ? scan.accepted : undefined };
}
function readFile(text) {
  const scans = /^\s*\{/.test(text) ? Object.entries(JSON.parse(text).scans).map(([key, value]) => [key, scanOf(key, value)]) : readTable(text);
  const changes = {}, count = { here: 0, other: 0, replaced: 0 };
  for (const [key, scan] of scans) {
    const entry = entryOf(key, scan), target = entry ? entry.key : key, before = changes[target] || work[target];
    const loaded = Object.fromEntries(Object.entries(scan).filter(([, content]) => content !== undefined));
    if (loaded.discs && before?.discs && !isSame({ discs: loaded.discs, absent: loaded.absent }, { discs: before.discs, absent: before.absent || [] })) count.replaced += 1;
    changes[target] = tidy({ ...before, ...loaded, ...(entry ? about(entry) : {}), ...(loaded.discs && entry ? { base: baseOf(entry), accepted: loaded.accepted } : {}) });
    count[entry ? "here" : "other"] += 1;
  }
  change("a file was loaded", changes);
  return count;
}
function readTable(text) {
  const [head, ...lines] = text.split(/\r?\n/);
  if (!head.startsWith("scan,rating")) throw new Error("it is neither corrections.json nor ratings.csv");
  return lines.map((line) => line.match(/^"((?:[^"]|"")*)",(pass|fail|doubt)?,(.*)$/)).filter(Boolean).map(([, name, rating, rest]) => {
    const sha = rest.match(/"([0-9a-f]{64})"$/)?.[1], scan = name.replaceAll('""', '"').replace(/^'(?=[=@+-])/, "");
    return [`csv:${sha || ""}:${scan}`, { name: scan, image: sha ? { sha256: sha } : {}, rating }];
  }).filter(([, scan]) => scan.rating);
}
