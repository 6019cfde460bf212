// Recipes: Python's dicts go through the reader that the program uses, so that both accept and
// refuse the same.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>

#include "io/files.h"
#include "model/recipe.h"
#include "python/bindings.h"

namespace qnpu::python {
namespace {

namespace fs = std::filesystem;

Dict load(const fs::path& path) { return to_dict(to_json(load_recipe(path))); }

Dict check(const Dict& recipe, const std::string& where) {
  return to_dict(to_json(recipe_from_json(from_dict(recipe), where)));
}

void save(const Dict& recipe, const fs::path& path) {
  write_json(path, to_json(recipe_from_json(from_dict(recipe), path.string())));
}

}  // namespace

void add_recipes(nb::module_& module) {
  module.def("load_recipe", load, nb::arg("path"),
             "Reads a recipe's file; every section that it has comes with all of its keys.");
  module.def("check_recipe", check, nb::arg("recipe"), nb::arg("where") = "the recipe",
             "The recipe as load_recipe() would give it. `where` begins the sentence of an Error.");
  module.def("save_recipe", save, nb::arg("recipe"), nb::arg("path"),
             "Checks the recipe and writes it; a file that is there is replaced as a whole.");
}

}  // namespace qnpu::python
