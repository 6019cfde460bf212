// The table of sites while build_graph fills it: what a recipe's rules make of each.
#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace qnpu {

class SiteBuilder {
 public:
  explicit SiteBuilder(const Recipe& recipe) : recipe_(recipe), used_(recipe.rules.size(), false) {}

 protected:
  // All return the index of the new site.

  // Its width is `spec.bitwidth` unless a rule of the recipe says one of `allowed`; Error, naming
  // the rule, if that says another.
  int add_site(Site site, const std::vector<int>& allowed);
  int activation(const std::string& name, int cols, int default_bits,
                 const std::vector<int>& allowed, bool rotated = false);
  int activation16(const std::string& name, int cols, bool rotated = false);
  int table(const std::string& name, int rows, int cols, RangeSource source);
  // One that shares its scale with `owner`, or is finer or coarser by its width.
  int tied(const std::string& name, int owner, int bits_wanted, Role role, int cols);
  int scores_site(const std::string& name, RangeSource source, bool symmetric, DType dtype);

  void tie(int site, int owner);
  void refuse_unused_rules() const;

  Site& at(int site) { return graph_.sites[static_cast<size_t>(site)]; }
  int bits(int site) { return bitwidth(at(site).qparams.dtype); }
  std::string in_layer(const std::string& name) const;  // "layers.3.<name>", or the name alone

  Graph graph_;
  int layer_ = -1;

 private:
  void check_spec(const Site& site, const QuantSpec& wished, const std::vector<int>& allowed,
                  int rule) const;

  const Recipe& recipe_;
  std::vector<bool> used_;  // by rule: has it matched a site?
};

}  // namespace qnpu
