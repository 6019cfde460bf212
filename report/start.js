// Everything is drawn at once, in the order in which it is read.

writeHeader();
for (const write of [writeSummary, writeDepth, writeMap, writeInputs, writeSensitivity, writeLearning,
  writeOperations, writeMemory, writeSites, writeRecipe]) write();
document.body.setAttribute("data-drawn", "yes");
