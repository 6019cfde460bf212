// The subcommands. Each add_* declares its options; the callback given to it runs the command once
// everything is parsed.
#pragma once

#include <CLI/CLI.hpp>

namespace qnpu {

void add_bench_command(CLI::App& app);
void add_completion_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_estimate_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_man_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_serve_command(CLI::App& app);
void add_verify_command(CLI::App& app);
void add_watch_command(CLI::App& app);

}  // namespace qnpu
