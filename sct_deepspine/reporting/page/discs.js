// Discs of one scan, and what may become of them. Nothing here touches the page or the browser's storage.
// A draft is {discs: [{value, world_mm, edit}], absent: [value]}; an edit returns one of
//   {draft, chosen, title}      the new draft,
//   {refused}                   a sentence why it can't be,
//   {question, offers}          ways to go on, each {title, run} whose run returns one of these again.
const firstValue = 1, closestMm = 2, usualMm = 20;
const numbered = (letter, count) => [...Array(count).keys()].map((n) => `${letter}${n + 1}`);
// Vertebrae above the sacrum: 24, unless the labels found that this spine has one more or one less.
const presacralOf = (entry) => entry?.presacral ?? 24;
const lastValueOf = (entry) => Math.max(presacralOf(entry), 24) + 1;
const vertebraeOf = (entry) => [...numbered("C", 7), ...numbered("T", 12), ...numbered("L", presacralOf(entry) - 19), "S1", "S2", "S3"];
const nameOf = (value, entry) => value === 1 ? "top of C1" : `${vertebraeOf(entry)[value - 2]}/${vertebraeOf(entry)[value - 1]}`;
const titleOf = (value, entry) => `${value} ${nameOf(value, entry)}`;
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const isAt = (a, b, mm = 0.02) => Math.hypot(...minus(a, b)) <= mm;
const byValue = (a, b) => a.value - b.value;
const copyOf = (draft) => ({ discs: draft.discs.map((disc) => ({ ...disc })), absent: [...draft.absent] });
const ownDraft = (entry) => ({ discs: entry.discs.map(({ value, world_mm }) => ({ value, world_mm })), absent: [...entry.absent] });

function isSame(one, other) {
  const a = [...one.discs].sort(byValue), b = [...other.discs].sort(byValue);
  return a.length === b.length && a.every((disc, n) => disc.value === b[n].value && isAt(disc.world_mm, b[n].world_mm))
    && [...one.absent].sort().join() === [...other.absent].sort().join();
}

// A picture's row and column are a place in the scan: each row begins at a point and goes on by one step a column.
function worldOf(entry, place) {
  const rows = entry.row_origins, top = Math.max(0, Math.min(Math.floor(place.row), rows.length - 2)), share = place.row - top;
  return [0, 1, 2].map((axis) => +(rows[top][axis] * (1 - share) + rows[top + 1][axis] * share
    + place.column * entry.column_step[axis]).toFixed(3));
}
const places = new WeakMap();
function placeOf(entry, disc) {
  const known = places.get(disc);
  if (known && known.entry === entry) return known;
  const own = entry.discs.find((other) => isAt(other.world_mm, disc.world_mm));
  const place = { ...(own ? { row: own.row, column: own.column } : nearest(entry, disc.world_mm)), entry };
  places.set(disc, place);
  return place;
}
function nearest(entry, world) {
  const rows = entry.row_origins, step = entry.column_step, ss = dot(step, step);
  let best = { beyond: Infinity, row: 0, column: 0 };
  for (let top = 0; top < rows.length - 1; top += 1) {
    const along = minus(rows[top + 1], rows[top]), from = minus(world, rows[top]);
    const aa = dot(along, along), as = dot(along, step), af = dot(along, from), sf = dot(step, from), all = aa * ss - as * as;
    const share = (af * ss - sf * as) / all, beyond = Math.max(-share, share - 1, 0);
    if (beyond < best.beyond) best = { beyond, row: top + share, column: (sf * aa - af * as) / all };
  }
  return { row: +best.row.toFixed(2), column: +best.column.toFixed(2) };
}

function isOutside(entry, world) {
  if (!entry.image.shape || !entry.image.affine) return false;
  const [a, b, c] = entry.image.affine, p = minus(world, [a[3], b[3], c[3]]);
  const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const axes = [0, 1, 2].map((n) => [a[n], b[n], c[n]]), size = dot(axes[0], cross(axes[1], axes[2]));
  return [0, 1, 2].some((n) => {
    const voxel = dot(p, cross(axes[(n + 1) % 3], axes[(n + 2) % 3])) / size;
    return voxel < -0.5 || voxel > entry.image.shape[n] - 0.5;
  });
}

// Discs are drawn within a limit of the canal, where the scan's canal is known.
const isFar = (entry, world) => Boolean(entry.canal_points?.length)
  && entry.canal_points.every((point) => Math.hypot(...minus(world, point)) > maxTipMm);

const gapsOf = ({ discs, absent }) => {
  const values = discs.map((disc) => disc.value), gaps = [];
  for (let value = Math.min(...values) + 1; value < Math.max(...values); value += 1) {
    if (!values.includes(value) && !absent.includes(value)) gaps.push(value);
  }
  return gaps;
};
// Why the discs can't stand as they are; empty if they can. Gaps are kept apart, since they can be closed later.
function wrongOf(entry, draft) {
  const discs = [...draft.discs].sort(byValue), out = [];
  discs.forEach((disc, n) => {
    if (disc.value < firstValue || disc.value > lastValueOf(entry)) out.push(`There is no disc with the number ${disc.value}.`);
    else if (n && disc.value === discs[n - 1].value) out.push(`${titleOf(disc.value, entry)} would be labelled twice.`);
    else if (isOutside(entry, disc.world_mm)) out.push(`${titleOf(disc.value, entry)} would lie outside the image.`);
    else if (isFar(entry, disc.world_mm)) out.push(`${titleOf(disc.value, entry)} would lie more than ${maxTipMm} mm from the spinal canal.`);
    else if (n && entry.row_origins?.length) {
      const down = (placeOf(entry, disc).row - placeOf(entry, discs[n - 1]).row) * entry.pixel_mm;
      if (down <= 0) out.push(`${titleOf(disc.value, entry)} can't lie above ${titleOf(discs[n - 1].value, entry)}.`);
      else if (down < closestMm) out.push(`${titleOf(disc.value, entry)} and ${titleOf(discs[n - 1].value, entry)} can't be at the same place.`);
    }
  });
  return out;
}

// Take a changed draft if it can stand. What an edit did not cause does not stop it.
function settled(entry, before, draft, title, chosen) {
  draft.discs.sort(byValue);
  const values = draft.discs.map((disc) => disc.value);
  draft.absent = draft.absent.filter((value) => !values.includes(value) && value > Math.min(...values) && value < Math.max(...values)).sort((a, b) => a - b);
  const old = wrongOf(entry, before), wrong = wrongOf(entry, draft).filter((sentence) => !old.includes(sentence));
  if (wrong.length) return { refused: wrong[0] };
  const known = gapsOf(before), gaps = gapsOf(draft).filter((value) => !known.includes(value));
  if (!gaps.length) return { draft, chosen, title };
  const names = gaps.map((value) => titleOf(value, entry)).join(", "), filled = copyOf(draft);
  for (const value of gaps) filled.discs.push({ value, world_mm: worldOf(entry, between(entry, draft, value)), edit: "added" });
  return { question: `${names} would be missing.`, offers: [
    { title: `${names}: mark as not there`, run: () => settled(entry, before, { ...copyOf(draft), absent: [...draft.absent, ...gaps] }, title, chosen) },
    { title: `add ${names} between`, run: () => settled(entry, before, filled, title, gaps[0]) }] };
}

// Where a missing disc lies if its neighbours are evenly spaced.
function between(entry, draft, value) {
  const above = draft.discs.filter((disc) => disc.value < value).sort(byValue).at(-1), below = draft.discs.filter((disc) => disc.value > value).sort(byValue)[0];
  const share = (value - above.value) / (below.value - above.value), a = placeOf(entry, above), b = placeOf(entry, below);
  return { row: +(a.row + share * (b.row - a.row)).toFixed(1), column: +(a.column + share * (b.column - a.column)).toFixed(1) };
}

const editWords = (disc, word) => disc.edit === "added" || disc.edit === word ? disc.edit : disc.edit ? "moved and renumbered" : word;

function moveDisc(entry, before, value, place) {
  const draft = copyOf(before), disc = draft.discs.find((one) => one.value === value);
  if (!disc) return { refused: "Choose a disc first." };
  if (place.row < 0 || place.column < 0 || place.row > entry.height - 1 || place.column > entry.width - 1) {
    return { refused: `${titleOf(value, entry)} would lie outside the picture.` };
  }
  Object.assign(disc, { world_mm: worldOf(entry, place), edit: editWords(disc, "moved") });
  return settled(entry, before, draft, `moved ${titleOf(value, entry)}`, value);
}

function putDisc(entry, before, draft, value, place) {
  draft.discs.push({ value, world_mm: worldOf(entry, place), edit: "added" });
  return settled(entry, before, draft, `added ${titleOf(value, entry)}`, value);
}

// Add a disc at a place. Between two discs whose numbers follow each other, one side has to be renumbered.
function addDisc(entry, before, place, wanted = null) {
  if (place.row < 0 || place.column < 0 || place.row > entry.height - 1 || place.column > entry.width - 1) {
    return { refused: "A disc outside the picture can't be added." };
  }
  if (isFar(entry, worldOf(entry, place))) return { refused: `A disc more than ${maxTipMm} mm from the spinal canal can't be added.` };
  const rows = before.discs.map((disc) => ({ value: disc.value, row: placeOf(entry, disc).row }));
  const above = rows.filter((disc) => disc.row <= place.row).sort(byValue).at(-1), below = rows.filter((disc) => disc.row > place.row).sort(byValue)[0];
  if (wanted !== null) return putDisc(entry, before, copyOf(before), wanted, place);
  if (!above && !below) return putDisc(entry, before, copyOf(before), entry.discs[0]?.value ?? 3, place);
  if (!below && above.value === lastValueOf(entry)) return { refused: `No disc lies below ${titleOf(lastValueOf(entry), entry)}; renumber the discs first.` };
  if (!above && below.value === firstValue) return { refused: `No disc lies above the ${nameOf(firstValue, entry)}; renumber the discs first.` };
  if (!above || !below || below.value - above.value > 1) return putDisc(entry, before, copyOf(before), above ? above.value + 1 : below.value - 1, place);
  const count = (n) => n === 1 ? "the disc" : `the ${n} discs`;
  const side = (which, step, value) => {
    const draft = shifted(before, which, step), n = before.discs.filter(which).length;
    const word = step > 0 ? "below" : "above", example = step > 0 ? below.value : above.value;
    const fits = draft.discs.every((disc) => disc.value >= firstValue && disc.value <= lastValueOf(entry));
    return fits ? [{ title: `renumber ${count(n)} ${word}: ${nameOf(example, entry)} becomes ${nameOf(example + step, entry)}; the new disc is ${titleOf(value, entry)}`,
      run: () => putDisc(entry, before, draft, value, place) }] : [];
  };
  const offers = [...side((disc) => disc.value >= below.value, 1, below.value), ...side((disc) => disc.value <= above.value, -1, above.value)];
  const words = `There is no number between ${titleOf(above.value, entry)} and ${titleOf(below.value, entry)}.`;
  return offers.length ? { question: words, offers } : { refused: words };
}

// Add by keyboard: where the chosen level is missing, else midway to the next disc below, else below the last.
function addNext(entry, before, chosen) {
  if (!before.discs.length) return addDisc(entry, before, { row: entry.height / 2, column: entry.width / 2 });
  const discs = [...before.discs].sort(byValue), values = discs.map((disc) => disc.value);
  if (chosen !== null && !values.includes(chosen) && chosen > values[0] && chosen < values.at(-1)) {
    return addDisc(entry, before, between(entry, before, chosen), chosen);
  }
  const at = chosen === null ? discs.length - 1 : Math.max(values.indexOf(chosen), 0), here = placeOf(entry, discs[at]);
  if (at < discs.length - 1) {
    const next = placeOf(entry, discs[at + 1]);
    return addDisc(entry, before, { row: (here.row + next.row) / 2, column: (here.column + next.column) / 2 });
  }
  const last = at ? placeOf(entry, discs[at - 1]) : null, down = last ? here.row - last.row : usualMm / entry.pixel_mm;
  return addDisc(entry, before, { row: here.row + down, column: here.column + (last ? here.column - last.column : 0) });
}

function removeDisc(entry, before, value) {
  if (before.absent.includes(value)) return { refused: `${titleOf(value, entry)} is marked as not there; add a disc there instead.` };
  if (!before.discs.some((disc) => disc.value === value)) return { refused: "Choose a disc first." };
  const draft = copyOf(before), title = `removed ${titleOf(value, entry)}`;
  draft.discs = draft.discs.filter((disc) => disc.value !== value);
  const above = draft.discs.filter((disc) => disc.value < value), below = draft.discs.filter((disc) => disc.value > value);
  if (!above.length || !below.length) return settled(entry, before, draft, title, null);
  const take = (next) => () => settled(entry, before, next, title, null);
  return { question: `${titleOf(value, entry)} is removed from between two discs.`, offers: [
    { title: `keep the numbers: ${titleOf(value, entry)} is not there (fused)`, run: take({ ...copyOf(draft), absent: [...draft.absent, value] }) },
    { title: `it was not a disc: renumber those below, one up (${nameOf(below[0].value, entry)} becomes ${nameOf(below[0].value - 1, entry)})`,
      run: take(shifted(draft, (disc) => disc.value > value, -1)) },
    { title: `it was not a disc: renumber those above, one down (${nameOf(above.at(-1).value, entry)} becomes ${nameOf(above.at(-1).value + 1, entry)})`,
      run: take(shifted(draft, (disc) => disc.value < value, 1)) }] };
}

// Renumber some discs, and with them the levels that are not there.
function shifted(before, which, step) {
  const draft = copyOf(before);
  for (const disc of draft.discs) {
    if (which(disc)) Object.assign(disc, { value: disc.value + step, edit: editWords(disc, "renumbered") });
  }
  draft.absent = draft.absent.map((value) => which({ value }) ? value + step : value);
  return draft;
}
const scopes = { this: (value) => (disc) => disc.value === value, up: (value) => (disc) => disc.value <= value,
  down: (value) => (disc) => disc.value >= value, all: () => () => true };
const scopeNames = { this: "this one", up: "from here up", down: "from here down", all: "all" };

function renumber(entry, before, value, scope, step) {
  if (scope !== "all" && !before.discs.some((disc) => disc.value === value)) return { refused: "Choose a disc first." };
  if (!before.discs.length) return { refused: "There is no disc to renumber." };
  const which = scopes[scope](value), draft = shifted(before, which, step), chosen = value === null ? null : value + step;
  const range = draft.discs.find((disc) => disc.value < firstValue || disc.value > lastValueOf(entry));
  if (range) return { refused: `Numbers run from ${titleOf(firstValue, entry)} to ${titleOf(lastValueOf(entry), entry)}.` };
  const title = `renumbered ${scopeNames[scope]} ${step > 0 ? "+1" : "−1"}`;
  const taken = draft.discs.filter((disc) => disc.value === chosen).length > 1;
  if (scope !== "all" && taken) {
    const rest = step > 0 ? "down" : "up";
    return { question: `${titleOf(chosen, entry)} is there already.`, offers: [rest, "all"].map((other) => ({
      title: `renumber ${scopeNames[other]} ${step > 0 ? "+1" : "−1"} instead`, run: () => renumber(entry, before, value, other, step) })) };
  }
  return settled(entry, before, draft, title, chosen);
}

function markAbsent(entry, before, value) {
  const values = before.discs.map((disc) => disc.value), title = `${value === null ? "" : titleOf(value, entry)} is not there`;
  if (value === null) return { refused: "Choose a disc first." };
  if (before.absent.includes(value)) {
    return { question: `${titleOf(value, entry)} is marked as not there.`, offers: [{ title: `it is there: add ${titleOf(value, entry)}`, run: () => addNext(entry, before, value) }] };
  }
  if (value <= Math.min(...values) || value >= Math.max(...values)) {
    return { refused: `${titleOf(value, entry)} is at the end of what is labelled: remove it instead.` };
  }
  const draft = copyOf(before);
  draft.discs = draft.discs.filter((disc) => disc.value !== value);
  draft.absent.push(value);
  return settled(entry, before, draft, title, value);
}
