"""Progress, the log of a run, and `qnpu watch`, on tiny models.

    run_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import fcntl
import json
import os
import pathlib
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

from cli_test import MODEL, PROGRAM, SOURCE, TEXT, Case, run, tree

BARS = "▁▂▃▄▅▆▇█"


def in_terminal(*arguments, columns=80):
    """(exit code, what a terminal of that width gets) of a program on it."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(x) for x in (PROGRAM, *arguments)], stdin=side, stdout=side,
                               stderr=side)
    os.close(side)
    output = b""
    try:
        while part := os.read(main, 65536):
            output += part
    except OSError:  # the other side is closed
        pass
    os.close(main)
    return process.wait(60), output.decode()


class RunCase(Case):
    def recipe(self, steps):
        return self.write(f"tune-{steps}.json", json.dumps({
            "name": "tune", "rules": [{"match": "layers.*_proj.weight", "bitwidth": 4}],
            "gptq": {}, "tune": {"steps": steps, "sequences": 2, "length": 32, "norms": True,
                                 "weight_scales": True, "lr_scales": 0.01}}))

    def events(self, folder):
        return [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]

    def evaluate(self, *arguments, **options):
        return run("eval", self.artifact, "--text", TEXT, "--length", 64, "--windows", 4, *arguments,
                   **options)

    def start(self, name, steps, *arguments):
        command = [PROGRAM, "quantize", "--model", MODEL, "--recipe", self.recipe(steps), "--calib",
                   TEXT, "--out", self.folder / name, "--samples", 4, "--length", 64, "--threads", 1,
                   *arguments]
        return subprocess.Popen([str(x) for x in command], text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def finish(self, process):
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def losses(self, folder):
        log = folder / "log.jsonl"
        if not log.exists():
            return []
        lines = log.read_text().split("\n")[:-1]
        return [x for x in map(json.loads, lines) if "loss" in x]


class Shown(RunCase):
    def test_a_bar_on_a_terminal(self):
        code, text = in_terminal("quantize", "--model", MODEL, "--recipe", self.recipe(200), "--calib",
                                 TEXT, "--out", self.folder / "bar", "--samples", 4, "--length", 64,
                                 columns=50)
        self.assertEqual(code, 0, text)
        bars = [x for x in text.split("\r") if "[" in x and "] tune" in x]
        self.assertGreater(len(bars), 1)
        self.assertRegex("".join(bars), r"\[#+\.+\] tune \d+ of 200")
        for line in bars:
            shown = line.replace("\x1b[J", "").rstrip("\n")
            self.assertLess(len(shown), 50)
        self.assertRegex(text, r"tune: [\d.]+ s, loss [\d.]+")

    def test_plain_lines_in_a_log(self):
        self.assertNotIn("\r", self.quantized.stderr)
        self.assertNotIn("\x1b", self.quantized.stderr)
        self.assertLess(self.quantized.stderr.count("\n"), 16)

    def test_quiet(self):
        out = self.folder / "quiet"
        for result in (self.quantize(out, "--quiet"), self.evaluate("--quiet", "--json"),
                       run("bench", self.artifact, "--prompts", 8, "--contexts", 8, "--decode", 2,
                           "--quiet", "--json"),
                       run("export", self.artifact, "--rows", 8, "--context", 32, "--quiet", "--json",
                           "--out", self.folder / "quiet-export")):
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            json.loads(result.stdout)
        self.assert_error(self.evaluate("--quiet", "--against", self.folder / "none"), "none")

    def test_every_long_command_shows_something(self):
        bench = run("bench", self.artifact, "--prompts", 8, "--contexts", 8, "--decode", 2, "--rows", 1,
                    "--batches", 2)
        self.assertRegex(bench.stderr, r"^bench, runs: [\d.]+ s\n$")
        self.assertRegex(self.evaluate().stderr, r"^evaluate, tokens: [\d.]+ s\n$")


class Log(RunCase):
    def test_what_it_holds(self):
        events = self.events(self.folder / "artifact.work")
        start, end = events[0], events[-1]
        self.assertEqual(start["event"], "start")
        self.assertEqual(start["command"][:2], ["qnpu", "quantize"])
        self.assertIn(str(MODEL), start["command"])
        self.assertEqual(start["recipe"], self.json("inspect", self.artifact)["recipe"])
        self.assertEqual((end["event"], end["code"]), ("end", 0))
        self.assertEqual(end["result"], json.loads(self.quantized.stdout))
        steps = [x["step"] for x in events if x["event"] == "progress"]
        self.assertEqual(steps[0], "load")
        self.assertEqual(steps[-1], "compare")
        times = [x["time"] for x in events]
        self.assertEqual(times, sorted(times))
        self.assertLess(abs(times[-1] - time.time()), 600)

    def test_losses_are_those_of_the_report(self):
        out = self.folder / "losses"
        self.assertEqual(self.quantize(out, recipe=self.recipe(5)).returncode, 0)
        logged = self.losses(self.folder / "losses.work")
        report = json.loads((out / "report.json").read_text())["tune"]
        self.assertEqual([x["loss"] for x in logged], report["losses"])
        self.assertEqual([x["done"] for x in logged], [1, 2, 3, 4, 5])
        self.assertEqual(logged[0]["lr_scales"], 0.01)
        self.assertLess(logged[-1]["lr_scales"], 0.01)

    def test_of_every_long_command(self):
        for name, arguments in {
                "eval": ("eval", self.artifact, "--text", TEXT, "--length", 64, "--windows", 2),
                "bench": ("bench", self.artifact, "--prompts", 8, "--contexts", 8, "--decode", 2),
                "export": ("export", self.artifact, "--rows", 8, "--context", 32, "--out",
                           self.folder / "exported")}.items():
            folder = self.folder / f"run-{name}"
            values = self.json(*arguments, "--run", folder)
            events = self.events(folder)
            self.assertEqual(events[0]["command"][1], name)
            self.assertEqual((events[-1]["code"], events[-1]["result"]), (0, values))

    def test_killed_and_resumed(self):
        whole = self.folder / "whole"
        self.finish(self.start("whole", 150))
        process = self.start("killed", 150)
        work = self.folder / "killed.work"
        self.wait_for(lambda: len(self.losses(work)) > 20)
        process.kill()
        process.communicate()
        dead = run("watch", self.folder / "killed")
        self.assertEqual(dead.returncode, 1)
        self.assertRegex(dead.stderr, rf"^qnpu: error: the run has died .*{process.pid} is gone")
        with open(work / "log.jsonl", "a") as log:
            log.write('{"event": "prog')  # as a kill within a write leaves it
        again = self.start("killed", 150)
        self.finish(again)
        self.assertEqual(tree(self.folder / "killed"), tree(whole))
        self.assertEqual([x.name for x in work.iterdir()], ["log.jsonl"])
        lines = (work / "log.jsonl").read_text().splitlines()
        broken = [i for i, x in enumerate(lines) if x == '{"event": "prog']
        self.assertEqual(len(broken), 1)
        second = json.loads(lines[broken[0] + 1])
        self.assertEqual(second["event"], "start")
        resumed = [json.loads(x) for x in lines[broken[0] + 1 :]]
        first = next(x["done"] for x in resumed if "loss" in x)
        self.assertEqual(first % 16, 1)
        self.assertGreater(first, 16)
        watched = run("watch", self.folder / "killed")
        self.assertEqual(watched.returncode, 0)
        self.assertIn("1 line of", watched.stderr)
        self.assertIn("finished after", watched.stdout)

    def test_a_failure_leaves_only_what_was_asked_for(self):
        text = self.write("short.txt", "A few words.\n")
        before = tree(self.folder)
        self.assert_error(self.quantize(self.folder / "failed", calib=text), "text")
        self.assertEqual(tree(self.folder), before)
        self.assertFalse((self.folder / "failed.work").exists())
        kept = self.folder / "kept"
        self.assert_error(self.quantize(self.folder / "failed", "--run", kept, calib=text), "text")
        end = self.events(kept)[-1]
        self.assertEqual((end["event"], end["code"]), ("end", 1))
        self.assertIn("the calibration text has", end["error"])
        watched = run("watch", kept)
        self.assertEqual(watched.returncode, 1)
        self.assertIn(end["error"], watched.stderr)

    def test_an_interrupt_is_logged(self):
        process = self.start("stopped", 1000000, "--run", self.folder / "stopped-run")
        self.wait_for(lambda: self.losses(self.folder / "stopped-run"))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143)
        self.assertEqual(self.events(self.folder / "stopped-run")[-1]["code"], 143)
        self.assertFalse((self.folder / "stopped.work").exists())

    def test_of_two_writers_the_second_is_refused(self):
        process = self.start("first", 1000000, "--run", self.folder / "shared")
        self.wait_for(lambda: self.losses(self.folder / "shared"))
        self.assert_error(self.evaluate("--run", self.folder / "shared"),
                          f"another process ({process.pid})", "log.jsonl")
        process.kill()
        process.communicate()
        self.assertEqual(self.evaluate("--run", self.folder / "shared").returncode, 0)

    def test_several_processes_write_one_log(self):
        process = self.start("several", 4, "--processes", 2)
        self.finish(process)
        events = self.events(self.folder / "several.work")
        self.assertEqual([x["event"] for x in events if x["event"] != "progress"].count("start"), 1)
        self.assertEqual(len([x for x in events if "loss" in x]), 4)

    def test_folders_that_cannot_be_written(self):
        file = self.write("file", "x")
        self.assert_error(self.evaluate("--run", file), "run folder", file)
        self.assert_error(self.evaluate("--run", file / "below"), "run folder")
        self.assert_error(self.evaluate("--run", "/proc/none"), "run folder", "/proc/none")
        full = self.folder / "full"
        full.mkdir()
        (full / "log.jsonl").symlink_to("/dev/full")
        self.assert_error(self.evaluate("--run", full), "No space left")
        out = self.folder / "unmade"
        self.assert_error(self.quantize(out, "--run", full), "No space left")
        self.assertFalse(out.exists())
        taken = self.folder / "taken"
        (taken / "log.jsonl").mkdir(parents=True)
        self.assert_error(self.evaluate("--run", taken), "log.jsonl")

    def test_a_log_that_cannot_grow_does_not_end_the_run(self):
        folder = self.folder / "small"
        self.assertEqual(self.evaluate("--run", folder).returncode, 0)
        size = len((folder / "log.jsonl").read_text().splitlines()[0]) + 60
        (folder / "log.jsonl").unlink()
        result = self.evaluate("--run", folder, "--json",
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        self.assertEqual(result.returncode, 0, result.stderr)
        json.loads(result.stdout)
        self.assertEqual(result.stderr.count("goes on without its log"), 1)


class TensorBoard(RunCase):
    """The lines of docs/commands.md, in the Python that scripts/setup makes."""

    READ = """
import glob, struct, sys
from tensorboardX.proto.event_pb2 import Event
data = open(glob.glob(sys.argv[1] + "/events*")[0], "rb").read()
while data:  # length, its checksum, record, its checksum
    size = struct.unpack("<Q", data[:8])[0]
    event = Event.FromString(data[12 : 12 + size])
    for value in event.summary.value:
        print(value.tag, event.step, value.simple_value, event.wall_time)
    data = data[16 + size :]
"""

    def test_event_files_have_the_losses(self):
        (code,) = re.findall(r"^python - my-model.work <<'END'\n(.*?)^END$",
                             (SOURCE / "docs/commands.md").read_text(), re.M | re.S)
        self.assertEqual(self.quantize(self.folder / "board", recipe=self.recipe(5)).returncode, 0)
        work = self.folder / "board.work"
        python = str(SOURCE / ".venv/bin/python")
        subprocess.run([python, "-c", code, str(work)], check=True, timeout=60)
        lines = subprocess.run([python, "-c", self.READ, str(work)], check=True, timeout=60,
                               capture_output=True, text=True).stdout.splitlines()
        found = {(tag, int(step)): (float(value), float(when))
                 for tag, step, value, when in map(str.split, lines)}
        self.assertEqual(len(found), 2 * 5)  # losses and rates
        for event in self.losses(work):
            value, when = found["tune/loss", event["done"]]
            self.assertAlmostEqual(value / event["loss"], 1, places=6)
            self.assertAlmostEqual(when, event["time"], places=3)


class Watch(RunCase):
    def test_a_finished_run(self):
        for name in (self.artifact, str(self.artifact) + "/", self.folder / "artifact.work"):
            result = run("watch", name)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertTrue(result.stdout.startswith("qnpu quantize --model"))
            self.assertRegex(result.stdout, r"\nfreeze: [\d.]+ s\n")
            self.assertRegex(result.stdout, r"\nfinished after [\d.]+ s\n$")

    def test_json_is_the_log(self):
        result = run("watch", self.artifact, "--json")
        self.assertEqual(result.stdout, (self.folder / "artifact.work/log.jsonl").read_text())

    def test_a_running_one_until_it_is_stopped(self):
        process = self.start("running", 1000000)
        self.wait_for(lambda: self.losses(self.folder / "running.work"))
        watch = subprocess.Popen([str(PROGRAM), "watch", str(self.folder / "running"), "--json"],
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen = 0
        while seen < 5:
            seen += "loss" in json.loads(watch.stdout.readline())
        self.assertIsNone(watch.poll())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        out, err = watch.communicate(timeout=20)
        self.assertEqual(json.loads(out.splitlines()[-1])["code"], 130)
        self.assertEqual((watch.returncode, err),
                         (1, "qnpu: error: the run ended with code 130: stopped\n"))

    def test_a_running_one_that_dies(self):
        process = self.start("dying", 1000000)
        self.wait_for(lambda: self.losses(self.folder / "dying.work"))
        watch = subprocess.Popen([str(PROGRAM), "watch", str(self.folder / "dying")], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        self.assertIsNone(watch.poll())
        process.kill()
        process.communicate()
        _, err = watch.communicate(timeout=20)
        self.assertEqual(watch.returncode, 1)
        self.assertIn(f"its process {process.pid} is gone", err)

    def test_a_bar_and_a_curve_on_a_terminal(self):
        out = self.folder / "curve"
        self.assertEqual(self.quantize(out, recipe=self.recipe(30)).returncode, 0)
        code, text = in_terminal("watch", out)
        self.assertEqual(code, 0)
        self.assertIn("] tune ", text)
        curve = "".join(c for c in text.split("tune: ")[1] if c in BARS)
        self.assertEqual(len(curve), 30)
        losses = [x["loss"] for x in self.losses(self.folder / "curve.work")]
        self.assertEqual(curve[losses.index(max(losses))], BARS[7])
        self.assertEqual(curve[losses.index(min(losses))], BARS[0])

    def test_on_another_machine(self):
        folder = self.folder / "elsewhere"
        folder.mkdir()
        log = folder / "log.jsonl"
        log.write_text('{"event": "start", "time": 1, "host": "far-away", "process": 1}\n')
        watch = subprocess.Popen([str(PROGRAM), "watch", str(folder)], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1.5)
        self.assertIsNone(watch.poll())
        with open(log, "a") as more:
            more.write('{"event": "end", "time": 11, "code": 0}\n')
        out, err = watch.communicate(timeout=20)
        self.assertEqual((watch.returncode, err), (0, ""))
        self.assertIn("finished after 10 s", out)

    def test_what_is_no_run(self):
        self.assert_error(run("watch", self.folder / "nothing"), "no run", "nothing.work/log.jsonl")
        self.assert_error(run("watch", MODEL), "no run")
        self.assert_error(run("watch", TEXT), "no run")
        folder = self.folder / "odd"
        folder.mkdir()
        log = folder / "log.jsonl"
        log.write_text("")
        self.assert_error(run("watch", folder), "holds no run")
        for content in (b"\xff\xfe\0\0", b"[1, 2]\n\n{}\n", b'{"event": 3, "time": "x"}\n' * 3):
            log.write_bytes(content)
            result = run("watch", folder)
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            self.assertIn("holds no run", result.stderr)
        odd = '{"event": "progress", "time": 1, "step": 7, "done": "x", "total": null}\n'
        for line in (odd, '{"event": "start", "time": 2, "command": 5}\n', '{"event": 1, "time": 1}\n',
                     "[]\n"):
            log.write_text(line + '{"event": "start", "time": 1}\n{"event": "end", "time": 2, "code": 0}\n')
            result = run("watch", folder)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("1 line of", result.stderr)
        log.unlink()
        log.mkdir()
        self.assert_error(run("watch", folder), "log.jsonl")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
