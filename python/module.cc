// The Python module quantnpu._core; the package quantnpu shows it to users (docs/python.md).
#include <nanobind/stl/string.h>

#include "base/status.h"
#include "python/bindings.h"

namespace qnpu::python {

Dict to_dict(const nlohmann::json& json) {
  return nb::borrow<Dict>(nb::module_::import_("json").attr("loads")(json.dump()));
}

nlohmann::json from_dict(const Dict& dict) {
  const nb::object text =
      nb::module_::import_("json").attr("dumps")(dict, nb::arg("allow_nan") = false);
  return nlohmann::json::parse(nb::cast<std::string>(text));
}

}  // namespace qnpu::python

NB_MODULE(_core, module) {
  using namespace qnpu::python;
  module.attr("version") = QNPU_VERSION;
  // NOLINTNEXTLINE(bugprone-throw-keyword-missing)
  const nb::exception<qnpu::Error> error(module, "Error", PyExc_RuntimeError);
  add_recipes(module);
  add_tokenizer(module);
  add_model(module);
  add_session(module);
  add_batch(module);
  add_statistics(module);
}
