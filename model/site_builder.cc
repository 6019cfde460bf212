#include "model/site_builder.h"

#include <algorithm>

#include "base/status.h"

namespace qnpu {
namespace {

// `rule` names the rule that decided.
void check_blocks(const Site& site, const std::string& rule) {
  const int size = site.spec.block_size;
  if (!site.name.ends_with("_proj.weight")) {
    fail("{}: site '{}' cannot have a block_size; only *_proj.weight can", rule, site.name);
  }
  if (site.spec.bitwidth != 4) {
    fail(
        "{}: blocks of {} for site '{}' of {} bits; only 4-bit weights have blocks, "
        "\"block_size\": 0 takes them away",
        rule, size, site.name, site.spec.bitwidth);
  }
  if (!site.spec.narrow_range) {
    fail("{}: site '{}' cannot have both a block_size and \"narrow_range\": false", rule,
         site.name);
  }
  if (site.cols % size != 0) {
    fail("{}: blocks of {} do not divide the {} inputs of site '{}'", rule, size, site.cols,
         site.name);
  }
}

}  // namespace

std::string SiteBuilder::in_layer(const std::string& name) const {
  return layer_ < 0 ? name : fmt::format("layers.{}.{}", layer_, name);
}

int SiteBuilder::add_site(Site site, const std::vector<int>& allowed) {
  const QuantSpec wished = site.spec;
  const int rule = apply_rules(recipe_, site.name, site.spec, used_);
  check_spec(site, wished, allowed, rule);
  if (site.source == RangeSource::kObserved) site.rule = rule;
  const int b = site.spec.bitwidth;
  if (site.qparams.dtype != DType::kU16) {
    const bool nibbles = b == 4 && site.spec.block_size == 0;  // blocks: products of 8 bits
    site.qparams.dtype = nibbles ? DType::kS4 : b <= 8 ? DType::kS8 : DType::kS16;
  }
  site.layer = layer_;
  graph_.sites.push_back(std::move(site));
  return static_cast<int>(graph_.sites.size()) - 1;
}

void SiteBuilder::check_spec(const Site& site, const QuantSpec& wished,
                             const std::vector<int>& allowed, int rule) const {
  const auto rule_text = [&] {
    return fmt::format("recipe '{}', rule {} ('{}')", recipe_.name, rule + 1,
                       recipe_.rules[static_cast<size_t>(rule)].match);
  };
  if (std::find(allowed.begin(), allowed.end(), site.spec.bitwidth) == allowed.end()) {
    fail("{}: {} bits asked for site '{}', which can have {} bits only", rule_text(),
         site.spec.bitwidth, site.name, fmt::join(allowed, " or "));
  }
  const bool may_be_asymmetric = site.name.ends_with("silu.out");
  if (site.spec.symmetric != wished.symmetric && !may_be_asymmetric) {
    fail("{}: site '{}' must stay {}; only silu.out can be either", rule_text(), site.name,
         wished.symmetric ? "symmetric" : "asymmetric");
  }
  if (!site.spec.narrow_range && site.role != Role::kWeight) {
    fail("{}: site '{}' has no narrow_range; only weights have", rule_text(), site.name);
  }
  if (site.spec.block_size != 0) check_blocks(site, rule_text());
}

int SiteBuilder::activation(const std::string& name, int cols, int default_bits,
                            const std::vector<int>& allowed, bool rotated) {
  Site site;
  site.name = name;
  site.cols = cols;
  site.rotated = rotated;
  site.spec.bitwidth = default_bits;
  return add_site(std::move(site), allowed);
}

int SiteBuilder::activation16(const std::string& name, int cols, bool rotated) {
  return activation(name, cols, 16, {16}, rotated);
}

int SiteBuilder::table(const std::string& name, int rows, int cols, RangeSource source) {
  Site site;
  site.name = name;
  site.role = Role::kTable;
  site.rows = rows;
  site.cols = cols;
  site.source = source;
  site.spec.bitwidth = 16;
  return add_site(std::move(site), {16});
}

void SiteBuilder::tie(int site, int owner) {
  at(site).source = RangeSource::kTied;
  at(site).tied_to = owner;
  at(site).rule = -1;
}

int SiteBuilder::tied(const std::string& name, int owner, int bits_wanted, Role role, int cols) {
  Site site;
  site.name = name;
  site.role = role;
  site.cols = cols;
  site.rotated = at(owner).rotated;
  site.source = RangeSource::kTied;
  site.tied_to = owner;
  site.spec.bitwidth = bits_wanted;
  return add_site(std::move(site), {bits_wanted});
}

int SiteBuilder::scores_site(const std::string& name, RangeSource source, bool symmetric,
                             DType dtype) {
  Site site;
  site.name = in_layer("self_attn." + name);
  site.role = Role::kScores;
  site.source = source;
  site.spec.bitwidth = 16;
  site.spec.symmetric = symmetric;
  site.qparams.dtype = dtype;
  return add_site(std::move(site), {16});
}

void SiteBuilder::refuse_unused_rules() const {
  for (size_t i = 0; i < used_.size(); ++i) {
    if (used_[i]) continue;
    fail("recipe '{}', rule {}: '{}' matches no site of this model; `qnpu inspect` lists them",
         recipe_.name, i + 1, recipe_.rules[i].match);
  }
}

}  // namespace qnpu
