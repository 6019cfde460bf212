// SQNR along the depth, of the artifact against the float model: small charts of one scale, one for
// each kind of place. Beside another artifact both have a line, alone the other kinds are faint.

function depthCurve(artifact, kind) {
  const sites = artifact.fidelity ? artifact.fidelity.sites : [];
  return sites.map((site) => Object.assign({sqnr: site.sqnr}, splitName(site.name)))
    .filter((site) => site.kind === kind).map((site) => [site.layer, site.sqnr]);
}

function writeDepth() {
  const part = section("depth", "Where quality goes", "How much of the float model\u2019s signal is left at each layer of the frozen artifact (SQNR in decibels, the noise of all earlier layers counted): a line that falls steeply marks a layer that costs quality.");
  artifacts.forEach((artifact) => {
    if (!artifact.fidelity) missing(part, (both ? artifact.name + ": " : "") + "this artifact does not hold the comparison with its float model; quantize again with this version of qnpu to have it measured.");
  });
  const all = artifacts.flatMap((a) => (a.fidelity ? a.fidelity.sites : [])).map((s) => s.sqnr);
  if (all.length === 0) return;
  const tokens = artifacts.filter((a) => a.fidelity)[0].fidelity.tokens + 1;
  legend(part);
  const grid = element("div", {class: "grid3"});
  part.append(grid);
  const kinds = Object.assign({}, kResidualKinds, kInputKinds);
  const domain = padded(d3.extent(all.filter((x) => x < 100)));
  for (const [kind, name] of Object.entries(kinds)) {
    figureIn(grid, [element("b", {}, name)], (parent) => depthChart(parent, kind, name, kinds, domain));
  }
  part.append(sentence(endText() + " Measured on " + tokens + " tokens of the calibration text, attention sinks left out.", "why"));
}

function depthChart(parent, kind, name, kinds, domain) {
  const lines = [];
  if (!both) {
    for (const other of Object.keys(kinds)) {
      if (other !== kind) lines.push({faint: true, points: depthCurve(artifacts[0], other)});
    }
  }
  artifacts.forEach((artifact, i) => {
    lines.push({key: letters[i], name: labelOf(i), points: depthCurve(artifact, kind)});
  });
  lineChart(parent, {height: 150, label: "SQNR of " + name + " by layer", lines, yDomain: domain,
    xLabel: "layer", tip: (line, p) => line.name + ", layer " + p[0] + "\n" + decibels(p[1])});
}

function endText() {
  const ends = artifacts.filter((a) => a.fidelity).map((artifact, i) => {
    const at = (name) => (artifact.fidelity.sites.find((s) => s.name === name) || {}).sqnr;
    return (both ? artifact.name + ": " : "") + "the head\u2019s input has " + decibels(at("lm_head.in")) + ", the logits " + decibels(at("logits")) + ".";
  });
  const text = ends.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
