"""What people and shells ask of the program: help, manual pages, completions in real shells, unknown
options, exit codes, --json; and docs/commands.md held against the program's own options. Commands are
found in `qnpu --help`: a new one is tested without being named here.

    shell_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import unittest

from cli_test import MODEL, PROGRAM, SOURCE, TEXT, Case, run

ARTIFACT = SOURCE / "testdata/artifacts/v1-tiny-llama"
HELP = run("--help").stdout
COMMANDS = re.findall(r"^(?:[A-Z]\w*|) +([a-z][a-z-]*)  +[A-Z]", HELP, re.M)
HELPS = {command: run(command, "--help").stdout for command in COMMANDS}


def options(command):
    """As `--help` lists them."""
    return re.findall(r"^  (--[a-z-]+)", HELPS[command], re.M)


def shell(*command, **extra):
    environment = {**os.environ, "PATH": f"{PROGRAM.absolute().parent}:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **extra)


class Help(unittest.TestCase):
    def test_of_the_program_is_one_screen(self):
        lines = HELP.splitlines()
        self.assertLessEqual(len(lines), 40)
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertTrue(lines[2].startswith("  qnpu quantize"), HELP)
        for command in ("quantize", "eval", "generate", "inspect", "watch", "export"):
            self.assertIn(command, COMMANDS)
        self.assertRegex(HELP, r"qnpu COMMAND --help .*qnpu man")

    def test_of_commands(self):
        for command, text in HELPS.items():
            with self.subTest(command):
                self.assertRegex(text, rf"^.+\n\n  qnpu {command}", "examples come first")
                self.assertRegex(text, rf"\nusage: qnpu {command}\b")
                self.assertIn("--help", options(command))
                for line in text.splitlines():
                    self.assertLessEqual(len(line), 100 if line.startswith("  qnpu") else 80, line)

    def test_examples_are_right(self):
        """Every option of an example is one of its command's."""
        for command, text in HELPS.items():
            for line in re.findall(r"^  (qnpu .*)$", text, re.M):
                self.assertEqual(line.split()[1], command)
                for option in re.findall(r" (--[a-z-]+)", line):
                    self.assertIn(option, options(command), line)


class Manual(unittest.TestCase):
    def test_names_every_option(self):
        main = run("man").stdout
        for command in COMMANDS:
            self.assertIn(f".B {command}\n", main)
            page = run("man", command).stdout.replace("\\-", "-")
            for option in options(command):
                self.assertRegex(page, rf"\n\.B {option}\b")

    @unittest.skipUnless(shutil.which("mandoc"), "no mandoc")
    def test_mandoc_finds_nothing_to_complain_about(self):
        for command in ["", *COMMANDS]:
            page = run("man", *filter(None, [command])).stdout
            lint = shell("mandoc", "-T", "lint", "-W", "warning", input=page)
            complaints = [x for x in lint.stdout.splitlines() if "missing date" not in x]
            self.assertEqual(complaints, [])
            self.assertIn("EXIT STATUS", page)

    def test_exit_codes(self):
        """serve's are its own: serve_limits_test.py holds the server against what is said here."""
        for command in COMMANDS:
            page = run("man", command).stdout.replace("\\-", "-")
            ended = re.search(r"^\.B 0\n(.*)$", page, re.M)[1]
            wanted = "a signal ended the server" if command == "serve" else "all went well"
            self.assertTrue(ended.startswith(wanted), command)
            self.assertIn(".BR 129 \", \" 130 \", \" 143\nended ", page)

    def test_unknown(self):
        result = run("man", "evel")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("'evel'", result.stderr)


class Installed(Case):
    def test_files(self):
        share = self.folder / "share"
        self.assertEqual(run("man", "--install", share).returncode, 0)
        files = {str(x.relative_to(share)) for x in share.rglob("*") if x.is_file()}
        self.assertEqual(files, {
            "man/man1/qnpu.1", *(f"man/man1/qnpu-{c}.1" for c in COMMANDS),
            "bash-completion/completions/qnpu", "zsh/site-functions/_qnpu",
            "fish/vendor_completions.d/qnpu.fish"})
        self.assert_error(run("man", "--install", "/proc/none"), "/proc/none")

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh_loads_it_by_itself(self):
        share = self.folder / "zsh-share"
        self.assertEqual(run("man", "--install", share).returncode, 0)
        script = self.write("autoload", f"fpath=({share}/zsh/site-functions $fpath); compinit -u -D\n")
        with Zsh(script, self.folder) as zsh:
            self.assertEqual(set(zsh.complete("qnpu ")), set(COMMANDS))
            self.assertEqual(zsh.complete("qnpu quantize --dev"), ["--device"])


class Completion(Case):
    """The same questions to three shells."""

    LINES = {
        "qnpu qua": ["quantize"],
        "qnpu quantize --rec": ["--recipe"],
        "qnpu quantize --recipe execu": ["executorch-w4a16", "executorch-w4a16-block"],
        "qnpu quantize --device ": ["cpu", "cuda"],
        "qnpu export a --to g": ["genie"],
        "qnpu inspect --target SM87": ["SM8750"],
        "qnpu inspect --target SM8650,SM87": ["SM8650,SM8750"],
        "qnpu eval my-mo": ["my-model/"],
        "qnpu eval my-model --text my-te": ["my-text.txt"],
        "qnpu quantize --recipe my-rec": ["my-recipe.json"],
        "qnpu man ev": ["eval"],
        "qnpu completion ": ["bash", "fish", "zsh"],
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.work = cls.folder / "work"
        cls.work.mkdir()
        (cls.work / "my-model").mkdir()
        for name in ("my-text.txt", "my-recipe.json"):
            (cls.work / name).write_text("x")
        cls.scripts = {}
        for name in ("bash", "zsh", "fish"):
            cls.scripts[name] = cls.folder / f"{name}-completion"
            cls.scripts[name].write_text(run("completion", name).stdout)

    def check(self, complete):
        for line, words in self.LINES.items():
            self.assertEqual(sorted(complete(line)), words, line)
        self.assertEqual(set(complete("qnpu ")) - {"--help", "--version"}, set(COMMANDS))
        for command in COMMANDS:
            found = {x for x in complete(f"qnpu {command} --") if x.startswith("--")}
            self.assertEqual(found, set(options(command)), command)

    def bash(self, line):
        words = line.split(" ")
        script = (f"source {self.scripts['bash']}; COMP_WORDS=({' '.join(words)}); "
                  f"[[ '{words[-1]}' ]] || COMP_WORDS+=(''); COMP_CWORD={len(words) - 1}; _qnpu; "
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        result = shell("bash", "--norc", "-c", script, cwd=self.work)
        self.assertEqual((result.returncode, result.stderr), (0, ""), line)
        # Of a folder, readline itself adds the slash.
        return [x + "/" * (self.work / x).is_dir() for x in result.stdout.split("\n") if x]

    def test_bash(self):
        self.check(self.bash)

    def test_bash_with_an_equals_sign(self):
        script = (f"source {self.scripts['bash']}; COMP_WORDS=(qnpu export a --to = g); COMP_CWORD=5; "
                  "_qnpu; echo ${COMPREPLY[@]}; COMP_WORDS=(qnpu export a --to =); COMP_CWORD=4; "
                  "_qnpu; echo ${COMPREPLY[@]}")
        self.assertEqual(shell("bash", "--norc", "-c", script).stdout,
                         "genie\nonnx qnn genie ort-genai aimet\n")

    def fish(self, line):
        script = f"source {self.scripts['fish']}; complete -C '{line}'"
        result = shell("fish", "--no-config", "-c", script, cwd=self.work)
        self.assertEqual((result.returncode, result.stderr), (0, ""), line)
        return [x.split("\t")[0] for x in result.stdout.splitlines()]

    @unittest.skipUnless(shutil.which("fish"), "no fish")
    def test_fish(self):
        self.check(self.fish)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh(self):
        with Zsh(self.scripts["zsh"], self.work) as zsh:
            self.check(zsh.complete)


class Zsh:
    """An interactive zsh on a pseudo-terminal, whose compadd writes down what it is given."""

    SETUP = """
PS1= PS2=; autoload -U compinit; compinit -u -D
compadd() {
  if [[ ${@[(i)-[OAD]]} -le $# ]]; then builtin compadd "$@"; return; fi
  local -a found; builtin compadd -O found "$@"
  local word; for word in $found; do print -r -- "$IPREFIX$word" >>$OUT; done
  builtin compadd "$@"
}
capture() { zle complete-word; zle kill-whole-line; print -r -- END >>$OUT }
zle -N capture; bindkey "^T" capture
"""

    def __init__(self, script, folder):
        self.folder, self.seen = folder, b""
        self.out = script.parent / "zsh-found"
        setup = script.parent / "zsh-setup"
        setup.write_text(f"{self.SETUP}\nOUT={self.out}\nsource {script}\n")
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(["zsh", "-f", "-i"], cwd=folder, stdin=side, stdout=side,
                                        stderr=side, start_new_session=True,
                                        env={**os.environ, "TERM": "dumb", "HOME": str(folder.parent)})
        os.close(side)
        self.say(f"source {setup}; print -r -- END >>{self.out}\n")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self.main)
        self.process.kill()
        self.process.wait()

    def say(self, keys):
        """Types them, and waits until zsh has done what they ask."""
        self.out.write_text("")
        os.write(self.main, keys.encode())
        deadline = time.monotonic() + 30
        while not self.out.read_text().endswith("END\n"):
            assert time.monotonic() < deadline, self.screen()
            if select.select([self.main], [], [], 0.02)[0]:
                self.seen = os.read(self.main, 65536)
        return self.out.read_text().splitlines()[:-1]

    def screen(self):
        return f"zsh does not answer; the last it wrote was {self.seen!r}"

    def complete(self, line):
        words = {x.rstrip("= ") for x in self.say(line + "\x14")}
        return [x + "/" * (self.folder / x).is_dir() for x in words]


class Documented(unittest.TestCase):
    """docs/commands.md, section by section."""

    @classmethod
    def setUpClass(cls):
        text = (SOURCE / "docs/commands.md").read_text()
        parts = re.split(r"^## qnpu ([a-z-]+)$", text, flags=re.M)
        cls.general = parts[0]
        cls.sections = dict(zip(parts[1::2], parts[2::2]))

    def test_every_command_has_a_section_and_a_line(self):
        self.assertEqual(set(self.sections), set(COMMANDS))
        listed = re.findall(r"^    qnpu ([a-z-]+) +[a-z]", self.general, re.M)
        self.assertEqual(sorted(listed), sorted(COMMANDS))

    def test_options_are_those_of_the_program(self):
        common = set(re.findall(r"`(--[a-z-]+)", self.general))
        for command, section in self.sections.items():
            cells = re.findall(r"^\| (`[^|]*(?:\\\|[^|]*)*) \|", section.replace("\\|", "/"), re.M)
            named = {o for cell in cells for o in re.findall(r"`(--[a-z-]+)", cell)}
            with self.subTest(command):
                self.assertEqual(named - set(options(command)), set(), "documented, but not there")
                self.assertEqual(set(options(command)) - named - common, set(), "not documented")

    def test_no_text_names_an_option_that_no_command_has(self):
        known = {o for c in COMMANDS for o in options(c)} | {"--version"}
        for document in [SOURCE / "README.md", *(SOURCE / "docs").rglob("*.md")]:
            for line in document.read_text().splitlines():
                for command, rest in re.findall(r"`qnpu ([a-z][a-z-]*)([^`]*)`", line):
                    self.assertIn(command, COMMANDS, line)
                    for option in re.findall(r"(--[a-z-]+)", rest):
                        self.assertIn(option, options(command), line)
        self.assertIn("--json", known)

    def test_readme_lists_every_command(self):
        listed = re.findall(r"^\| `qnpu ([a-z-]+)` \|", (SOURCE / "README.md").read_text(), re.M)
        self.assertEqual(sorted(listed), sorted(COMMANDS))


class Errors(Case):
    def test_unknown_options(self):
        for command in COMMANDS:
            for option in options(command):
                if len(option) < 7:
                    continue
                slip = option[:-2] + option[-1]
                if slip in options(command):
                    continue
                self.assert_error(run(command, slip), f"no option {slip}", "did you mean",
                                  f"`qnpu {command} --help`")
            self.assert_error(run(command, "--colour=red"), "no option --colour;", command)
        self.assert_error(run("eval", ARTIFACT, "--txt", TEXT), "(did you mean '--text'?)")

    def test_nothing_given(self):
        for command in COMMANDS:
            result = run(command)
            if command == "man":
                self.assertEqual(result.returncode, 0)
                continue
            self.assert_error(result, f"`qnpu {command} --help`")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            for command in (["--help"], ["--version"], ["eval", "--help"], ["man"], ["completion", "zsh"],
                            ["inspect", ARTIFACT], ["estimate", ARTIFACT],
                            ["watch", self.artifact], ["watch", self.artifact, "--json"]):
                result = subprocess.run([str(x) for x in (PROGRAM, *command)], stdout=full,
                                        stderr=subprocess.PIPE, text=True)
                self.assertEqual(result.returncode, 1, command)
                self.assertRegex(result.stderr,
                                 "^qnpu: error: cannot write to standard output: No space left")

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            folder = self.folder / f"signal-{number}"
            process = subprocess.Popen(
                [PROGRAM, "bench", ARTIFACT, "--repeat", "100000", "--run", folder],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not (folder / "log.jsonl").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (128 + number, ""))
            self.assertEqual(err.splitlines()[-1], "qnpu: stopped; nothing was changed")


class Json(Case):
    """One JSON object on standard output and nothing else, of every command that has --json."""

    def arguments(self):
        short = ("--rows", 8, "--context", 32)
        return {
            "quantize": ("--model", MODEL, "--recipe", "w8a8kv8", "--calib", TEXT, "--samples", 2,
                         "--length", 64, "--out", self.folder / "json"),
            "watch": (self.artifact,),
            "inspect": (ARTIFACT,),
            "eval": (ARTIFACT, "--text", TEXT, "--length", 64, "--windows", 1),
            "generate": (ARTIFACT, "--prompt", "A", "--tokens", 4),
            "bench": (ARTIFACT, "--prompts", 8, "--contexts", 8, "--decode", 2),
            "estimate": (ARTIFACT, *short),
            "export": (self.artifact, *short, "--out", self.folder / "json-export"),
            "verify": (self.artifact, "--text", TEXT, "--on", "onnxruntime", "--tokens", 20, "--decode", 2,
                       "--rows", 8, "--context", 60, "--no-sites", "--work", self.folder / "verify"),
        }

    ELSEWHERE = {"serve", "report"}  # have tests of their own

    def test_every_command(self):
        known = self.arguments()
        for command in COMMANDS:
            if "--json" not in options(command) or command in self.ELSEWHERE:
                continue
            with self.subTest(command):
                self.assertIn(command, known, "say how to call it")
                result = run(command, *known[command], "--json")
                self.assertEqual(result.returncode, 0, result.stderr)
                lines = result.stdout.splitlines()
                if command != "watch":
                    self.assertEqual(len(lines), 1)
                for line in lines:
                    self.assertIsInstance(json.loads(line), dict)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
