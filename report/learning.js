// What learning did: its loss, its rate, and how far it moved what it learned.

const kMoved = {input_scales: "inputs\u2019 scales", output_scales: "outputs\u2019 scales",
  weight_scales: "weights\u2019 scales", norms: "norms", channel_scales: "channels", rotations: "rotations"};

function writeLearning() {
  const part = section("learning", "Learning", "How the loss fell while scales, norms, rotations or weights were tuned end to end, at which rate, and how far each kind moved from where it began.");
  artifacts.forEach((artifact, i) => {
    if (artifact.learning.length === 0) {
      part.append(sentence((both ? artifact.name + ": the" : "The") + " recipe \u201c" + artifact.recipe.name + "\u201d learns nothing."));
    }
    for (const run of artifact.learning) writeRun(part, artifact, run, i);
  });
}

function writeRun(part, artifact, run, i) {
  const spec = run.spec || {};
  part.append(element("h3", {}, (both ? artifact.name + ": " : "") + "section \u201c" + run.section + "\u201d, " + run.losses.length + " steps"));
  part.append(sentence(heldOutText(run)));
  const grid = element("div", {class: "grid3"});
  part.append(grid);
  const series = (values) => values.map((value, step) => [step + 1, value]);
  const chart = (title, lines, more) => figureIn(grid, title, (parent) => lineChart(parent, Object.assign({
    height: 190, label: "Learning", lines, xLabel: "step", margin: {left: 52},
    tip: (line, p) => line.name + ", step " + p[0] + "\n" + digits(p[1])}, more)));
  chart([element("b", {}, "Loss"), " (" + (spec.loss || "per token") + ", nats per token)"], [{key: letters[i], name: "loss", points: series(run.losses)}]);
  if (!run.rates) {
    return missing(part, "Rates and movements are not in this artifact; quantize again with this version of qnpu to have them recorded.");
  }
  const rates = [["lr_rotations", spec.rotations], ["lr_scales", spec.weight_scales || spec.input_scales || spec.norms || spec.output_scales || spec.channel_scales], ["lr_weights", spec.weights]]
    .filter(([key, used]) => used && spec[key] > 0);
  const rateLines = rates.map(([key], k) => ({key: "s" + k, name: key, points: series(run.rates.map((r) => r * spec[key]))}));
  const movedLines = Object.entries(run.movement || {}).map(([kind, values], k) => ({key: "s" + k, name: kMoved[kind] || kind, points: series(values)}));
  const keys = (lines) => lines.flatMap((line) => [" ", element("span", {class: "key " + line.key}), line.name]);
  if (rateLines.length) chart([element("b", {}, "Learning rate"), ...keys(rateLines)], rateLines, {});
  if (movedLines.length) chart([element("b", {}, "Movement"), " (root mean square; of scales the change of the logarithm, of rotations radians)", ...keys(movedLines)], movedLines, {});
}

function heldOutText(run) {
  const texts = (run.held_out || []).map((text) => text.text + " " + digits(text.before, 3) + " \u2192 " + digits(text.after, 3));
  if (texts.length === 0) return "No text was held out.";
  return "Loss on held-out text: " + texts.join("; ") + ". " + (run.accepted ? "The result was kept." : "It was worse on one of them, so the start was kept.");
}
