// Text through a model with every site looked at: counts of its integers, or the integers.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/status.h"
#include "model/recipe.h"
#include "python/guarded_session.h"
#include "python/statistics.h"

namespace qnpu::python {
namespace {

// One site's counts, with what makes real numbers of them.
struct Statistics {
  SiteCounts counts;
  IntegerRange range;
  double scale;
  int32_t zero_point;

  double real(double q) const { return scale * (q - zero_point); }
  double mean() const { return real(counts.sum / static_cast<double>(counts.values)); }
  double rms() const {  // sqrt(mean of (q - z)^2) * scale
    const double n = static_cast<double>(counts.values), z = zero_point;
    return scale * std::sqrt(counts.sum_of_squares / n - 2 * z * counts.sum / n + z * z);
  }
  double saturated() const {
    return static_cast<double>(counts.saturated) / static_cast<double>(counts.values);
  }
};

Statistics statistics_of(const Site& site) {
  const QParams& q = site.qparams;
  return {{}, integer_range(q.dtype), q.scale.at(0), q.zero_point.empty() ? 0 : q.zero_point[0]};
}

// Which sites' names match; Error if none that a node writes does.
std::vector<bool> matching(const Graph& graph, const std::string& pattern) {
  std::vector<bool> wanted(graph.sites.size());
  bool any = false;
  for (const Node& node : graph.nodes) {
    wanted[node.out] = glob_match(pattern, graph.site(node.out).name);
    any = any || wanted[node.out];
  }
  if (!any) {
    fail("no activation, score or cache is called '{}'; * stands for any characters", pattern);
  }
  return wanted;
}

// A session in which the tokens fit at once: scores and caches are then seen as a whole.
std::shared_ptr<GuardedSession> session_for(const Model& model, size_t tokens, int threads) {
  const int prefix = model.graph().prefix_length();
  if (tokens == 0) fail("no tokens to run: give at least one");
  if (tokens > static_cast<size_t>(model.artifact->positions - prefix)) {
    fail("{} tokens, but {} has positions for {}", tokens, model.artifact->folder.string(),
         model.artifact->positions - prefix);
  }
  SessionOptions options;
  options.context = prefix + static_cast<int>(tokens);
  options.max_rows = static_cast<int>(tokens);
  options.threads = threads;
  return std::make_shared<GuardedSession>(model, options);
}

// A cache is written a row at a time by each append, but the site is one.
nb::object to_array(const Site& site, SiteArray array) {
  auto* owned = new std::vector<std::byte>(std::move(array.bytes));
  nb::capsule owner(owned,
                    [](void* p) noexcept { delete static_cast<std::vector<std::byte>*>(p); });
  const nb::dlpack::dtype type = site.qparams.dtype == DType::kS16   ? nb::dtype<int16_t>()
                                 : site.qparams.dtype == DType::kU16 ? nb::dtype<uint16_t>()
                                                                     : nb::dtype<int8_t>();
  return nb::cast(nb::ndarray<nb::numpy>(owned->data(), array.shape.size(), array.shape.data(),
                                         owner, nullptr, type));
}

using Arrays = nb::typed<nb::dict, nb::str, nb::ndarray<nb::numpy>>;

Arrays trace(const Model& model, const Tokens& tokens, const std::string& pattern, int threads) {
  const Graph& graph = model.graph();
  const std::vector<bool> wanted = matching(graph, pattern);
  std::map<int, SiteArray> arrays;
  session_for(model, tokens.size(), threads)->call([&](Session& session) {
    session.set_trace([&](const SiteValues& values) {
      if (wanted[values.site]) arrays[values.site] = copy(graph, values);
    });
    session.run(tokens, /*all_rows=*/true);
  });
  nb::dict result;
  for (auto& [index, array] : arrays) {
    const Site& site = graph.site(index);
    result[site.name.c_str()] = to_array(site, std::move(array));
  }
  return nb::borrow<Arrays>(result);
}

using Table = std::map<std::string, Statistics>;

Table statistics(const Model& model, const Tokens& tokens, const std::string& pattern, int length,
                 int threads) {
  if (length < 1) fail("windows of {} tokens: give 1 or more", length);
  const Graph& graph = model.graph();
  const std::vector<bool> wanted = matching(graph, pattern);
  const size_t window = std::min(tokens.size(), static_cast<size_t>(length));
  std::map<int, Statistics> found;
  session_for(model, window, threads)->call([&](Session& session) {
    session.set_trace([&](const SiteValues& values) {
      if (!wanted[values.site]) return;
      const auto entry = found.try_emplace(values.site, statistics_of(graph.site(values.site)));
      count(graph, values, entry.first->second.counts);
    });
    for (size_t begin = 0; begin < tokens.size(); begin += window) {
      session.reset();
      const size_t end = std::min(begin + window, tokens.size());
      session.run(std::span(tokens).subspan(begin, end - begin), /*all_rows=*/true);
    }
  });
  Table table;
  for (const auto& [index, statistics] : found) table[graph.site(index).name] = statistics;
  return table;
}

auto histogram(const Statistics& s) {
  return to_numpy(std::vector<int64_t>(s.counts.histogram.begin(), s.counts.histogram.end()),
                  {size_t{kBins}});
}

// [kBins + 1] real numbers: bin i holds what lies from edge i up to, but without, edge i + 1.
auto histogram_edges(const Statistics& s) {
  std::vector<double> edges;
  const double width = (double{1.0} + s.range.qmax - s.range.qmin) / kBins;
  for (int i = 0; i <= kBins; ++i) edges.push_back(s.real(s.range.qmin - 0.5 + i * width));
  return to_numpy(std::move(edges), {size_t{kBins + 1}});
}

}  // namespace

void add_statistics(nb::module_& module) {
  constexpr auto kOwn = nb::rv_policy::automatic;  // an array is no part of the object
  nb::class_<Statistics>(module, "SiteStatistics", "What a site held while a text was read.")
      .def_prop_ro(
          "values", [](const Statistics& s) { return s.counts.values; }, "Their number.")
      .def_prop_ro("least_integer", [](const Statistics& s) { return s.counts.least; })
      .def_prop_ro("greatest_integer", [](const Statistics& s) { return s.counts.greatest; })
      .def_prop_ro(
          "least", [](const Statistics& s) { return s.real(s.counts.least); }, "As a real number.")
      .def_prop_ro("greatest", [](const Statistics& s) { return s.real(s.counts.greatest); })
      .def_prop_ro("mean", &Statistics::mean, "Of the real numbers.")
      .def_prop_ro("rms", &Statistics::rms, "Root of the mean of their squares.")
      .def_prop_ro("saturated", &Statistics::saturated,
                   "Share of values at an end of what the integers can hold.")
      .def_prop_ro("histogram", histogram, kOwn,
                   "Counts [256] in equal parts of the integers' range.")
      .def_prop_ro("histogram_edges", histogram_edges, kOwn,
                   "Real numbers [257] between the parts.");
  module.def("trace", trace, nb::arg("model"), nb::arg("tokens"), nb::arg("match") = "*",
             nb::kw_only(), nb::arg("threads") = 0,
             "The integers of every site whose name matches, while the tokens go through the model "
             "at once: activations [T, cols]; scores [heads, T, positions], zero_point where a "
             "token cannot see; caches [positions, cols].");
  module.def("statistics", statistics, nb::arg("model"), nb::arg("tokens"), nb::arg("match") = "*",
             nb::kw_only(), nb::arg("length") = 512, nb::arg("threads") = 0,
             "Counts of the integers of every site whose name matches, while windows of `length` "
             "tokens go through the model, each from the beginning.");
}

}  // namespace qnpu::python
