#include <map>

#include "base/status.h"
#include "model/budget.h"
#include "quant/choose_widths.h"

namespace qnpu {
namespace {

// Groups of one kind, "mlp.down_proj" of all layers.
struct Row {
  std::string kind;
  int bits = 0;            // the larger width
  int wide = 0, all = 0;   // groups
  double before = 0.0;     // sum of divergences, all narrow
  double after = 0.0;      // as chosen
  std::string marks = {};  // # for each that was widened, - for the others, in the order of layers
};

std::string kind_of(const WidthGroup& group) {
  const std::string layer = fmt::format("layers.{}.", group.layer);
  return group.name.starts_with(layer) ? group.name.substr(layer.size()) : group.name;
}

std::vector<Row> rows_of(const std::vector<WidthGroup>& groups) {
  std::vector<Row> rows;
  std::map<std::string, size_t> by_kind;
  for (const WidthGroup& group : groups) {
    const auto [found, is_new] = by_kind.try_emplace(kind_of(group), rows.size());
    if (is_new) rows.push_back({.kind = found->first, .bits = group.wide_bits});
    Row& row = rows[found->second];
    ++row.all;
    row.before += group.divergence;
    row.marks += group.wide ? '#' : '-';
    row.wide += group.wide ? 1 : 0;
    row.after += group.wide ? 0.0 : group.divergence;
  }
  return rows;
}

}  // namespace

std::string width_table(const WidthChoice& choice, const std::string& budget) {
  std::string text = fmt::format(
      "widths within {}: {} of weights and tables ({} at the least)\n"
      "  {:<20} {:>9} {:>9}  KL divergence   by layer\n",
      budget, budget_size(choice.bytes), budget_size(choice.smallest_bytes), "", "bits", "widened");
  for (const Row& row : rows_of(choice.groups)) {
    text +=
        fmt::format("  {:<20} {:>9} {:>9}  {:.4f} {:.4f}   {}\n", row.kind,
                    fmt::format("{} or {}", row.bits / 2, row.bits),
                    fmt::format("{} of {}", row.wide, row.all), row.before, row.after, row.marks);
  }
  return text;
}

}  // namespace qnpu
