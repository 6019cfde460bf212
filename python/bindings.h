// The parts of the Python module; each file adds its own. Types that several of them know are here.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/qnpu/site_table.h"
#include "io/tokenizer.h"
#include "model/artifact.h"

namespace qnpu::python {

namespace nb = nanobind;

using Dict = nb::typed<nb::dict, nb::str, nb::any>;
using Tokens = std::vector<int32_t>;

// A row of the site table, and its graph, which it points into.
struct SiteEntry {
  std::shared_ptr<const Graph> graph;
  SiteRow row;
};

class GuardedSession;

// An artifact that is loaded, and what was asked of it so far.
struct Model {
  std::shared_ptr<const Artifact> artifact;
  std::shared_ptr<const Tokenizer> tokenizer;  // null until somebody wants it
  std::weak_ptr<const GuardedSession> latest;  // whose weights the next session shares

  const Graph& graph() const { return artifact->graph; }
};

void add_recipes(nb::module_& module);
void add_tokenizer(nb::module_& module);
void add_model(nb::module_& module);
void add_session(nb::module_& module);
void add_batch(nb::module_& module);
void add_statistics(nb::module_& module);

std::shared_ptr<const Tokenizer> tokenizer_of(Model& model);  // holds the GIL

// Python objects and JSON, by way of its text.
Dict to_dict(const nlohmann::json& json);
nlohmann::json from_dict(const Dict& dict);

// An array that owns the numbers.
template <typename T>
auto to_numpy(std::vector<T> numbers, std::initializer_list<size_t> shape) {
  auto* owned = new std::vector<T>(std::move(numbers));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(owned->data(), shape, owner);
}

}  // namespace qnpu::python
