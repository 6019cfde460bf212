// How a model answers a task.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "apps/qnpu/logits_source.h"
#include "apps/qnpu/progress.h"
#include "apps/qnpu/tasks.h"
#include "eval/choices.h"

namespace qnpu {

// Log-likelihood of each choice after the query, in nats. What the choices begin with in common,
// the query, goes through the model once.
std::vector<double> choice_log_likelihoods(const TaskItem& item, const LogitsSource& source);

// Sees an item's log-likelihoods, by choice.
using ItemSink = std::function<void(const TaskItem& item, std::span<const double> log_likelihoods)>;

// Error: an item is longer than the model's context.
void check_items(const Task& task, const LogitsSource& source);

// Error: as check_items(), logits that are not finite; throws Interrupted.
ChoiceAccuracy evaluate_task(const Task& task, const LogitsSource& source, Progress& progress,
                             const ItemSink& on_item = {});

}  // namespace qnpu
