// Several sequences at once, each with a KV cache of its own: a walk of the model reads the weights
// once for all of them.
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>

#include "base/status.h"
#include "python/guarded_session.h"

namespace qnpu::python {
namespace {

using TokensBySequence = std::map<int, Tokens>;
template <typename T>
using RowBySequence = std::map<int, std::vector<T>>;  // logits [V]
template <typename T>
using ArrayBySequence = std::map<int, nb::ndarray<nb::numpy, T>>;

struct Batch {
  std::shared_ptr<GuardedSession> session;
};

Batch* make(Model& model, int sequences, int context, int threads, int max_rows) {
  SessionOptions options;
  options.sequences = sequences;
  options.context = context;
  options.threads = threads;
  options.max_rows = max_rows;
  return new Batch{open_session(model, options)};
}

void check_room(const Session& session, const TokensBySequence& wanted) {
  for (const auto& [sequence, tokens] : wanted) {
    if (tokens.empty()) fail("sequence {} is given no tokens", sequence);
    const int room = session.context() - session.position(sequence);
    if (tokens.size() <= static_cast<size_t>(room)) continue;
    fail(
        "{} tokens, but the context of {} positions has room for {} in sequence {}; open a batch "
        "with more",
        tokens.size(), session.context(), room, sequence);
  }
}

// The beginnings of what is left that go into a walk of `rows` tokens, in shares as equal as can
// be.
std::vector<Piece> next_pieces(const std::vector<Piece>& left, size_t rows) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < left.size() && rows > 0; ++i) {
    const size_t share = std::max<size_t>(rows / (left.size() - i), 1);
    pieces.push_back(
        {left[i].sequence, left[i].tokens.first(std::min(share, left[i].tokens.size()))});
    rows -= pieces.back().tokens.size();
  }
  return pieces;
}

// Logits' integers of the last token that each sequence is given.
RowBySequence<int16_t> append(Session& session, const TokensBySequence& wanted) {
  check_room(session, wanted);
  std::vector<Piece> left;
  for (const auto& [sequence, tokens] : wanted) left.push_back({sequence, tokens});
  RowBySequence<int16_t> rows;
  while (!left.empty()) {
    const std::vector<Piece> pieces = next_pieces(left, static_cast<size_t>(session.max_rows()));
    const auto logits = session.run_batch(pieces);
    const size_t vocab = logits.size() / pieces.size();
    for (size_t i = 0; i < pieces.size(); ++i) {
      left[i].tokens = left[i].tokens.subspan(pieces[i].tokens.size());
      const auto row = logits.subspan(i * vocab, vocab);
      if (left[i].tokens.empty()) rows[left[i].sequence].assign(row.begin(), row.end());
    }
    std::erase_if(left, [](const Piece& piece) { return piece.tokens.empty(); });
  }
  return rows;
}

template <typename T>
ArrayBySequence<T> to_arrays(RowBySequence<T> rows) {
  ArrayBySequence<T> arrays;
  for (auto& [sequence, row] : rows) {
    const size_t vocab = row.size();
    arrays.emplace(sequence, to_numpy(std::move(row), {vocab}));
  }
  return arrays;
}

ArrayBySequence<int16_t> append_integers(Batch& batch, const TokensBySequence& tokens) {
  return to_arrays(batch.session->call([&](Session& s) { return append(s, tokens); }));
}

ArrayBySequence<float> append_real(Batch& batch, const TokensBySequence& tokens) {
  return to_arrays(batch.session->call([&](Session& s) {
    RowBySequence<float> rows;
    for (const auto& [sequence, row] : append(s, tokens)) {
      rows[sequence] = to_real(row, s.logits_scale());
    }
    return rows;
  }));
}

int position(Batch& batch, int sequence) {
  return batch.session->call([=](Session& s) { return s.position(sequence); });
}

void truncate(Batch& batch, int sequence, int position) {
  batch.session->call([=](Session& s) { s.truncate(position, sequence); });
}

void reset(Batch& batch, int sequence) {
  batch.session->call([=](Session& s) { s.reset(sequence); });
}

void copy(Batch& batch, int source, int target, int position) {
  batch.session->call([=](Session& s) { s.copy(source, target, position); });
}

}  // namespace

void add_batch(nb::module_& module) {
  nb::class_<Batch>(module, "Batch",
                    "The integer runtime with several sequences, which go through the model "
                    "together. What one gets does not depend on the others. A call that fails "
                    "leaves all of them as they were.")
      .def(nb::new_(&make), nb::arg("model"), nb::arg("sequences"), nb::kw_only(),
           nb::arg("context") = 0, nb::arg("threads") = 0, nb::arg("max_rows") = 128,
           "`sequences`: how many, each with a cache of `context` positions; the rest as Session.")
      .def("append", append_real, nb::arg("tokens"),
           "Runs tokens, given by sequence, behind those that each has seen. Real logits [V] for "
           "the successor of the last one, by sequence.")
      .def("append_integers", append_integers, nb::arg("tokens"),
           "The same as the integers that the model computes: real = logits_scale * integer.")
      .def("position", position, nb::arg("sequence"),
           "Positions of its cache that are taken, the prefix included.")
      .def("truncate", truncate, nb::arg("sequence"), nb::arg("position"),
           "Forgets its tokens from this position on.")
      .def("reset", reset, nb::arg("sequence"), "Forgets all its tokens.")
      .def("copy", copy, nb::arg("source"), nb::arg("target"), nb::arg("position"),
           "Makes `target` what `source` is up to `position`: a common beginning is computed once.")
      .def_prop_ro(
          "sequences",
          [](Batch& b) { return b.session->call([](Session& s) { return s.sequences(); }); })
      .def_prop_ro("context",
                   [](Batch& b) { return b.session->call([](Session& s) { return s.context(); }); })
      .def_prop_ro("logits_scale", [](Batch& b) {
        return b.session->call([](Session& s) { return s.logits_scale(); });
      });
}

}  // namespace qnpu::python
