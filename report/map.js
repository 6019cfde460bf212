// A map of the rounding alone: every site of at most 8 bits and every weight, layers across.

function layersOf(artifact) {
  return artifact.config.num_layers;
}

// Kinds in the order in which the layers compute them.
function mapKinds(artifact) {
  const kinds = new Map();
  for (const site of artifact.sites) {
    const {layer, kind} = splitName(site.name);
    if (layer < 0 || !known(site.sqnr) || site.role === "table") continue;
    if (site.role === "weight" || bitsOf(site) <= 8 || isLinearInput(site.name)) kinds.set(kind, site.role === "weight");
  }
  const list = [...kinds];
  return list.filter((k) => !k[1]).concat(list.filter((k) => k[1])).map((k) => ({kind: k[0], name: k[0].replace(/^(self_attn|mlp)\./, "")}));
}

function siteTable(artifact) {
  return new Map(artifact.sites.map((site) => [site.name, site]));
}

function mapCell(site) {
  if (!site || !known(site.sqnr)) return null;
  const shade = Math.pow(Math.min(1, Math.max(0.04, (58 - site.sqnr) / 46)), 1.5);
  const wide = bitsOf(site) > 8;
  return {key: wide ? "fill-wide" : "fill-a", shade: wide ? 0.8 : shade, site: site.name,
    tip: site.name + "\n" + bitsOf(site) + " bits, " + decibels(site.sqnr)};
}

function differenceCell(a, b) {
  if (!a || !b || !known(a.sqnr) || !known(b.sqnr)) return null;
  const change = b.sqnr - a.sqnr;
  return {key: change < 0 ? "low" : "up", shade: Math.min(1, 0.03 + Math.abs(change) / 12), site: a.name,
    tip: a.name + "\n" + decibels(a.sqnr) + " \u2192 " + decibels(b.sqnr) + " (" + signed(fixed(change, 1)) + "), " +
      bitsOf(a) + " \u2192 " + bitsOf(b) + " bits"};
}

function writeMap() {
  const part = section("map", "Rounding, site by site", "Each square is a site of one layer, the darker the more its own rounding loses (SQNR in decibels, the noise of other sites not counted); a square of a linear\u2019s input shows its histogram below.");
  const views = both ? [["difference", artifacts[1].name + " against " + artifacts[0].name], [0, artifacts[0].name], [1, artifacts[1].name]] : [[0, ""]];
  if (!artifacts.some((a) => a.measured)) {
    return missing(part, "There is no report.json in this artifact, so no SQNR is known; copy the artifact with all its files, or quantize again.");
  }
  const controls = element("div", {class: "controls"});
  const holder = element("div", {class: "chart"});
  if (both) part.append(controls);
  part.append(holder, mapKey(views[0][0]));
  let shown = views[0][0];
  const buttons = views.map(([view, name]) => {
    const button = element("button", {"aria-pressed": String(view === shown)}, name);
    button.addEventListener("click", () => {
      shown = view;
      buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      holder.textContent = "";
      drawMap(holder, shown);
      holder.nextSibling.replaceWith(mapKey(shown));
    });
    return button;
  });
  controls.append(...buttons);
  draw(holder, (parent) => drawMap(parent, shown));
}

function mapKey(view) {
  const text = view === "difference" ?
    "Green: the second rounds more finely there, red: more coarsely; full colour from 12 dB on." :
    "Full colour: 12 dB and less; nearly white: 58 dB and more; violet: a linear\u2019s input of 16 bits.";
  return element("p", {class: "why"}, text);
}

function drawMap(parent, view) {
  const artifact = artifacts[view === "difference" ? 0 : view];
  const tables = artifacts.map(siteTable);
  heatMap(parent, {
    label: "SQNR of sites by layer", rows: mapKinds(artifact), columns: layersOf(artifact),
    choose: (name) => chooseInput(name),
    cell: (row, column) => {
      const name = "layers." + column + "." + row.kind;
      if (view === "difference") return differenceCell(tables[0].get(name), tables[1].get(name));
      return mapCell(tables[view].get(name));
    },
  });
}
