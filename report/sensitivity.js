// Which places need more bits: as measured by the recipe, or else as the histograms tell.

// {text, rows: [{name, value, wide, text}]}, or null if nothing is known.
function rankingOf(artifact) {
  const {layers, widths} = artifact.sensitivity;
  const table = siteTable(artifact);
  if (widths) {
    return {text: "KL divergence from float when this group alone has its smaller width, as measured to choose widths within the budget (" + (artifact.recipe.budget || "none") + ").",
      rows: widths.groups.map((group) => ({name: group.name, value: group.divergence, wide: [8, 16].includes(group.bits) && group.bits === wideBits(group),
        text: digits(group.divergence, 3) + ", " + group.bits + " bits"}))};
  }
  if (layers) {
    return {text: "Mean relative error of the input of down at 8 bits, by which the recipe chose those that have 16.",
      rows: layers.ratios.map((ratio, layer) => ({name: "layers." + layer + ".mlp.down_proj.in", value: ratio,
        wide: layers.layers.includes(layer), text: digits(ratio, 3)}))};
  }
  const inputs = Object.entries(artifact.histograms).filter(([name]) => table.has(name));
  if (inputs.length === 0) return null;
  return {text: "Mean relative error of each linear\u2019s input at 8 bits, from its histogram: in effect the share of values that round to zero; the recipe \u201c" + artifact.recipe.name + "\u201d does not choose by it.",
    rows: inputs.map(([name, histogram]) => ({name, value: histogram.relative_error,
      wide: bitsOf(table.get(name)) === 16 && name !== "lm_head.in", text: percent(histogram.relative_error)}))};
}

// Groups are of weights (4 or 8 bits) or of inputs of down (8 or 16).
function wideBits(group) {
  return group.name.endsWith(".in") ? 16 : 8;
}

function writeSensitivity() {
  const part = section("sensitivity", "Sensitivity", "Which places would suffer most from fewer bits, the worst first; those that were given the larger width are violet.");
  const grid = element("div", {class: "grid2"});
  artifacts.forEach((artifact, i) => {
    const ranking = rankingOf(artifact);
    const whose = both ? artifact.name + ": " : "";
    if (!ranking) return missing(part, whose + "this artifact holds neither a ranking nor histograms; quantize again with this version of qnpu, or with a recipe that has \u201csensitivity\u201d or a \u201cbudget\u201d.");
    const rows = ranking.rows.filter((row) => known(row.value)).sort((a, b) => b.value - a.value);
    const wide = rows.filter((row) => row.wide).length;
    const caption = (both ? artifact.name + ". " : "") + ranking.text + " " + (wide === 0 ? "None has the larger width." : wide + " of " + rows.length + " have the larger width.") + (rows.length > 24 ? " The first 24 are drawn." : "");
    figureIn(grid, [caption], (parent) => barChart(parent, {label: "Sensitivity ranking", left: 170, step: 17,
      rows: rows.slice(0, 24).map((row) => ({name: row.name.replace("layers.", ""), value: row.value, key: row.wide ? "wide" : letters[i], text: row.text}))}));
  });
  part.append(grid);
}
