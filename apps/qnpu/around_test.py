"""What lies around the program and is not as it should be: closed streams, pipes that nobody reads,
values that are empty, outputs that are inputs, links, folders of others, two runs in one folder.

    around_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import fcntl
import json
import os
import shutil
import subprocess

from cli_test import MODEL, PROGRAM, TEXT, Case, main, run, tree

GRAPHS = ("--rows", 8, "--context", 32)


def in_shell(redirections, *arguments):
    """The result of the program with standard streams as the shell makes them."""
    command = ["bash", "-c", f'"$@" {redirections}', "bash", str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


class Streams(Case):
    CLOSED = "0<&- >&- 2>&-"

    def quantize_command(self, out):
        return ("quantize", "--model", MODEL, "--recipe", "w8a8kv8", "--calib", TEXT, "--out", out,
                "--samples", 4, "--length", 64)

    def test_nothing_is_printed_into_an_artifact(self):
        out = self.folder / "closed"
        self.assertEqual(in_shell(self.CLOSED, *self.quantize_command(out)).returncode, 0)
        self.assertEqual(tree(out), tree(self.artifact))
        graphs = [self.folder / x for x in ("open-graphs", "closed-graphs")]
        command = ("export", self.artifact, *GRAPHS, "--out")
        self.assertEqual(run(*command, graphs[0]).returncode, 0)
        # What was printed is lost, and said to be; the graphs are whole.
        self.assertEqual(in_shell(self.CLOSED, *command, graphs[1]).returncode, 1)
        self.assertEqual(tree(graphs[0]), tree(graphs[1]))

    def test_errors_that_nobody_can_read(self):
        for where in ("2>&-", "2>/dev/full"):
            result = in_shell(where, "inspect", self.folder / "none")
            self.assertEqual((result.returncode, result.stderr), (1, ""))
            result = in_shell(where, "generate", self.artifact, "--prompt", "A", "--tokens", 2)
            self.assertEqual(result.returncode, 0)

    def test_progress_that_nobody_can_read(self):
        out = self.folder / "unread"
        for where in ("2>&-", "2>/dev/full"):
            self.assertEqual(in_shell(where, *self.quantize_command(out)).returncode, 0)
            self.assertEqual(tree(out), tree(self.artifact))
            shutil.rmtree(out)

    def test_a_pipe_that_nobody_reads(self):
        long = self.write("long.txt", TEXT.read_text() * 20)
        stored = self.folder / "stored"
        before = tree(self.folder)
        for command in (("inspect", self.artifact), ("inspect", self.artifact, "--json"),
                        ("generate", self.artifact, "--prompt", "A", "--tokens", 100),
                        ("watch", self.artifact),
                        (*self.quantize_command(self.folder / "stopped"), "--calib", long),
                        ("eval", self.artifact, "--text", long, "--length", 64, "--save-logits", stored)):
            read, write = os.pipe()
            os.close(read)
            both = command[0] in ("quantize", "eval")  # what they say while they work
            result = subprocess.run([str(x) for x in (PROGRAM, *command)], stdout=write,
                                    stderr=write if both else subprocess.PIPE, timeout=300)
            os.close(write)
            self.assertEqual((result.returncode, result.stderr or b""), (141, b""), command)
        # What ended before its first word to nobody is whole; of the others nothing is left.
        left = [x for x in tree(self.folder) if x not in before]
        self.assertEqual([x for x in left if x.startswith(".") or ".partial" in x], [])
        self.assertLessEqual({x.split("/")[0] for x in left}, {"stored", "stopped"})
        if stored.exists():
            again = self.folder / "again"
            run("eval", self.artifact, "--text", long, "--length", 64, "--save-logits", again)
            self.assertEqual(stored.read_bytes(), again.read_bytes())


class Slips(Case):
    def test_empty_values(self):
        artifact = self.artifact
        for command in (("generate", artifact, "--prompt", "A", "--seed"),
                        ("generate", artifact, "--prompt", "A", "--temperature"),
                        ("eval", artifact, "--text", TEXT, "--length", 64, "--against"),
                        ("eval", artifact, "--text", TEXT, "--length", 64, "--run"),
                        ("report", artifact, "--out"), ("estimate", artifact, "--target"),
                        ("bench", artifact, "--prompts"), ("serve", artifact, "--host"),
                        ("serve", artifact, "--api-key"), ("inspect", artifact, "--sites")):
            self.assert_error(run(*command, ""), command[-1], "its value is empty")
        self.assert_error(run("inspect", ""), "its value is empty")
        self.assertEqual(run("generate", artifact, "--chat", "--system", "", "--prompt", "A",
                             "--tokens", 1).returncode, 0)

    def test_values_given_twice(self):
        result = run("generate", self.artifact, "--prompt", "A", "--tokens", 1, "--tokens", 2)
        self.assert_error(result, "--tokens is given more than once")

    def test_seeds(self):
        command = ("generate", self.artifact, "--prompt", "A", "--tokens", 1, "--seed")
        for seed in (-1, 2**64, "1.5", "nan", " 1"):
            self.assert_error(run(*command, seed), f"'{seed}' must be an integer from 0 to {2**64 - 1}")
        self.assertEqual(run(*command, 2**64 - 1).returncode, 0)
        result = run("verify", self.artifact, "--text", TEXT, "--decode", -1)
        self.assert_error(result, "'-1' must be an integer from 0 to")

    def test_outputs_that_are_inputs(self):
        questions = self.write("q.jsonl", json.dumps({"query": "A", "choices": ["b"], "gold": 0}) + "\n")
        text = self.write("t.txt", TEXT.read_text())
        measured = self.folder / "measured.json"
        measured.write_text(json.dumps(self.json("eval", self.artifact, "--text", text, "--length", 64)))
        before = tree(self.folder)
        ev = ("eval", self.artifact, "--text", text, "--length", 64)
        for command in ((*ev, "--tasks", questions, "--items", questions),
                        (*ev, "--tasks", questions, "--items", self.folder / "." / "t.txt"),
                        (*ev, "--save-logits", text),
                        ("report", self.artifact, "--eval", measured, "--out", measured)):
            self.assert_error(run(*command), "would be overwritten")
        self.assertEqual(tree(self.folder), before)

    def test_one_question_has_no_standard_error(self):
        one = self.write("one.jsonl", json.dumps({"query": "A", "choices": ["b"], "gold": 0}) + "\n")
        self.assertEqual(run("eval", self.artifact, "--tasks", one).stdout,
                         f"{'one':<18} acc 1.0000, acc_norm 1.0000, 1 item\n")

    def test_context_beyond_the_positions(self):
        plan = ("--model", MODEL, "--recipe", "w8a8kv8")
        for whose in ((self.artifact,), plan):
            for command in (("estimate", *whose), ("inspect", *whose, "--target", "SM8750")):
                result = run(*command, "--context", 513)
                self.assert_error(result, "a context of 513 positions", "has 512", "--context 512")
                self.assertEqual(run(*command, "--context", 512).returncode, 0)
                self.assertEqual(run(*command).returncode, 0)  # 1024, but for the model's 512
        self.assertEqual(self.json("estimate", *plan)["graphs"][0]["context"], 512)

    def test_rows_beyond_the_positions(self):
        result = run("export", self.artifact, "--rows", 257, "--context", 512, "--out", self.folder / "e")
        self.assert_error(result, "257", "514", "512 positions")

    def test_rates_of_zero(self):
        for keys in ({"norms": True, "lr_scales": 0.0}, {"rotations": True, "lr_rotations": 0.0}):
            recipe = self.write("zero.json", json.dumps(
                {"name": "zero", "rotation": {"r1": "hadamard", "r2": "none"}, "rules": [],
                 "learn": {"steps": 2, "length": 32, **keys}}))
            result = self.quantize(self.folder / "zero", recipe=recipe)
            self.assert_error(result, "learns nothing", next(x for x in keys if x.startswith("lr_")))


class Folders(Case):
    def test_a_link_stays_one(self):
        disk = self.folder / "disk"
        disk.mkdir()
        link = self.folder / "link"
        link.symlink_to(disk / "new")
        for _ in range(2):
            self.assertEqual(self.quantize(link).returncode, 0)
            self.assertTrue(link.is_symlink())
            self.assertEqual(tree(disk / "new"), tree(self.artifact))
        self.assertEqual([x.name for x in disk.iterdir()], ["new"])

    def test_folders_of_other_programs(self):
        foreign = self.folder / "foreign"
        foreign.mkdir()
        (foreign / "weights.bin").write_text("another network")
        for name in ("genai_config.json", "genie_config.json", "export.json", "graph.json"):
            (foreign / name).write_text('{"model": "another"}')
            before = tree(foreign)
            self.assert_error(run("export", self.artifact, *GRAPHS, "--out", foreign), "no earlier export")
            self.assert_error(self.quantize(foreign), "no artifact")
            self.assertEqual(tree(foreign), before)

    def test_every_form_is_replaced_by_the_next(self):
        out = self.folder / "forms"
        for form in ("aimet", "onnx", "aimet", "aimet"):
            result = self.json("export", self.artifact, *GRAPHS, "--to", form, "--out", out)
            parts = [part for graph in result["graphs"].values() for part in graph["parts"]]
            named = {name for part in parts for name in (part["file"], *part.get("encodings", []))}
            self.assertEqual(named, {x.name for x in out.iterdir() if x.suffix in (".onnx", ".encodings")})
            mark = json.loads((out / "export.json").read_text())
            self.assertEqual(mark["format"], f"quantnpu-{form}")

    def verify(self, work):
        return run("verify", self.artifact, "--text", TEXT, "--on", "onnxruntime", *GRAPHS, "--tokens",
                   16, "--decode", 4, "--work", work)

    def test_work_that_cannot_be_done(self):
        self.assert_error(self.verify(self.write("file", "")), "cannot make the folder", "file")
        work = self.folder / "work"
        work.mkdir()
        folder = os.open(work, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        self.assert_error(self.verify(work), "another process is at work", work)
        os.close(folder)


if __name__ == "__main__":
    main()
