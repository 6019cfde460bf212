// Everything is written, then drawn, in the order in which it is read.

writeHeader();
for (const write of [writeSummary, writeDepth, writeMap, writeInputs, writeSensitivity, writeLearning,
  writeOperations, writeMemory, writeSites, writeRecipe]) write();
drawAll();
document.body.setAttribute("data-drawn", "yes");
