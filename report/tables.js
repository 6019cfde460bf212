// Tables that can be sorted and filtered. On screen and in print they show what the filter shows.

// options: id, rows, columns [{name, value(row), text(row), left}], groups [[name, test(row)]],
// sort (column), descending, most (rows at first; the rest on demand).
function dataTable(parent, options) {
  const state = {sort: options.sort || 0, down: Boolean(options.descending), group: 0, word: "", most: options.most || Infinity};
  const search = element("input", {type: "search", placeholder: "part of a name", "aria-label": "Filter by name"});
  const group = element("select", {"aria-label": "Show"}, ...options.groups.map(([name], i) => element("option", {value: i}, name)));
  const count = element("span", {});
  const more = element("button", {}, "show all");
  const head = element("tr", {}), body = element("tbody");
  const show = () => fillTable(options, state, {head, body, count, more});
  options.columns.forEach((column, i) => {
    const cell = element("th", {"data-sort": i, scope: "col"}, column.name);
    cell.addEventListener("click", () => {
      state.down = state.sort === i ? !state.down : i > 0;
      state.sort = i;
      show();
    });
    head.append(cell);
  });
  search.addEventListener("input", () => { state.word = search.value.toLowerCase(); show(); });
  group.addEventListener("change", () => { state.group = Number(group.value); show(); });
  more.addEventListener("click", () => { state.most = Infinity; show(); });
  parent.append(element("div", {class: "controls"}, group, search, count, more),
    element("div", {class: "scroll"}, element("table", {id: options.id}, element("thead", {}, head), body)));
  show();
}

function sortedRows(options, state) {
  const column = options.columns[state.sort];
  const test = options.groups[state.group][1];
  const rows = options.rows.filter((row) => test(row) && options.columns[0].value(row).toLowerCase().includes(state.word));
  const sign = state.down ? -1 : 1;
  return rows.map((row) => [column.value(row), row]).sort(([a], [b]) => {
    if (!known(a) && typeof a !== "string") return known(b) || typeof b === "string" ? 1 : 0;
    if (!known(b) && typeof b !== "string") return -1;
    return typeof a === "string" ? sign * a.localeCompare(b, "en", {numeric: true}) : sign * (a - b);
  }).map((pair) => pair[1]);
}

function fillTable(options, state, parts) {
  const rows = sortedRows(options, state);
  const shown = rows.slice(0, state.most);
  parts.body.replaceChildren(...shown.map((row) => element("tr", {}, ...options.columns.map((column) =>
    element("td", column.left ? {class: "left"} : {}, column.text ? column.text(row) : String(column.value(row) ?? ""))))));
  parts.count.textContent = shown.length + " of " + options.rows.length;
  parts.more.hidden = shown.length === rows.length;
  [...parts.head.children].forEach((cell, i) => {
    if (i === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

// ---- the sites ----

function writeSites() {
  const part = section("sites", "Sites", both ?
    "Every place where a number is quantized, in both; of which those that differ in width or scale are shown." :
    "Every place where a number is quantized, with what was chosen for it and what that costs: click a column\u2019s name to sort, type to filter.");
  if (both) writeSiteDifferences(part); else writeSiteTable(part);
}

const kSiteGroups = [
  ["inputs of linears, and weights", (s) => isLinearInput(s.name) || s.role === "weight"],
  ["inputs of linears", (s) => isLinearInput(s.name)],
  ["weights", (s) => s.role === "weight"],
  ["16-bit activations", (s) => s.role !== "weight" && s.role !== "table" && bitsOf(s) === 16],
  ["all sites", () => true],
];

function writeSiteTable(part) {
  const against = new Map((artifacts[0].fidelity ? artifacts[0].fidelity.sites : []).map((s) => [s.name, s.sqnr]));
  const number = (name, value, text) => ({name, value, text: (s) => (known(value(s)) ? (text || digits)(value(s)) : "")});
  dataTable(part, {
    id: "site-table", rows: artifacts[0].sites, groups: kSiteGroups,
    columns: [
      {name: "site", value: (s) => s.name},
      number("bits", bitsOf, String),
      number("scale", (s) => s.scale),
      number("covers from", (s) => s.low), number("to", (s) => s.high),
      number("seen from", (s) => s.min), number("to", (s) => s.max),
      number("SQNR of rounding", (s) => s.sqnr, (x) => fixed(x, 1)),
      number("against float", (s) => against.get(s.name), (x) => fixed(x, 1)),
      {name: "decided by", value: (s) => s.rule || "", left: true},
      {name: "range from", value: (s) => s.range_from || "", left: true},
    ],
  });
}

function writeSiteDifferences(part) {
  const other = siteTable(artifacts[1]);
  const rows = artifacts[0].sites.filter((a) => other.has(a.name)).map((a) => {
    const b = other.get(a.name);
    return {name: a.name, role: a.role, dtype: a.dtype, a, b, bits: bitsOf(b) - bitsOf(a),
      ratio: known(a.scale) && known(b.scale) ? b.scale / a.scale : NaN, change: known(a.sqnr) && known(b.sqnr) ? b.sqnr - a.sqnr : NaN};
  });
  const differs = (r) => r.bits !== 0 || Math.abs(r.ratio - 1) > 1e-4;
  const only = artifacts[0].sites.length + artifacts[1].sites.length - 2 * rows.length;
  const wide = rows.filter((r) => r.bits !== 0).length;
  part.append(sentence(wide + " sites differ in width, " + rows.filter((r) => r.bits === 0 && differs(r)).length + " more in scale; " + only + " are in one of the two only."));
  const sqnr = (s) => (known(s.sqnr) ? fixed(s.sqnr, 1) : "");
  dataTable(part, {
    id: "site-table", rows,
    groups: [["that differ, inputs of linears and weights", (r) => differs(r) && (isLinearInput(r.name) || r.role === "weight")],
      ["that differ in width", (r) => r.bits !== 0], ["that differ", differs], ["all sites", () => true]],
    sort: 6, descending: false,
    columns: [
      {name: "site", value: (r) => r.name},
      {name: "bits", value: (r) => r.bits, text: (r) => (r.bits ? bitsOf(r.a) + " \u2192 " + bitsOf(r.b) : String(bitsOf(r.a)))},
      {name: "scale, first", value: (r) => r.a.scale, text: (r) => digits(r.a.scale)},
      {name: "second \u00f7 first", value: (r) => r.ratio, text: (r) => digits(r.ratio)},
      {name: "SQNR, first", value: (r) => r.a.sqnr, text: (r) => sqnr(r.a)},
      {name: "second", value: (r) => r.b.sqnr, text: (r) => sqnr(r.b)},
      {name: "difference", value: (r) => r.change, text: (r) => (known(r.change) ? signed(fixed(r.change, 1)) : "")},
    ],
  });
}

// ---- how it was made ----

function writeRecipe() {
  const part = section("made", "How it was made", "All that the result depends on: the same checkpoint, recipe, text and seed give the same artifact.");
  artifacts.forEach((artifact) => {
    if (both) part.append(element("h3", {}, artifact.name));
    part.append(sentence(madeText(artifact)));
    part.append(element("pre", {}, JSON.stringify(artifact.recipe, null, 1)));
  });
}

function madeText(artifact) {
  const c = artifact.calibration;
  const sources = {file: "text from files", sampled: "text sampled from the model", both: "text from files and from the model"};
  const text = c ? "Calibrated on " + c.windows + " windows of " + c.length + " tokens, " + (sources[c.source] || c.source) + "; seed " + artifact.seed + "." : "How it was calibrated is not recorded (no report.json).";
  const prefix = (artifact.prefix || []).map((token) => JSON.stringify(token.text)).join(", ");
  return text + (prefix ? " Every sequence stands behind the prefix " + prefix + "." : "");
}
