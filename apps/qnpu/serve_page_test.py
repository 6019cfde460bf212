"""The chat page of `qnpu serve`, in headless Chromium.

    serve_page_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import threading

from browser_testing import Browser
from program_testing import main
from serve_testing import Case, eventually


class Page(Browser, Case):
    """The chat page in Chromium."""

    def open(self, server=None, **options):
        self.page = self.browser.new_page(**options)
        self.addCleanup(self.page.close)
        self.troubles, self.requests = [], []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto((server or self.server).url + "/")
        return self.page

    def ask(self, text):
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def wait_for_answer(self):
        self.page.wait_for_selector("#send", state="visible")

    def test_an_answer(self):
        page = self.open()
        page.get_by_role("heading", name="tiny").wait_for()
        page.click("summary")
        page.fill("#temperature", "0")
        page.fill("#max-tokens", "24")
        page.click("summary")
        self.ask("Where does the river run?")
        self.wait_for_answer()
        first = self.chat().choices[0].message.content
        self.assertEqual(page.inner_text(".assistant").strip(), first.strip())
        self.assertRegex(page.inner_text("#status"), r"^\d+ tokens, [\d.]+ tokens/s$")
        self.ask("And <b>then</b>?")
        self.wait_for_answer()
        wanted = self.client.chat.completions.create(
            model="tiny", temperature=0, max_tokens=24,
            messages=[{"role": "user", "content": "Where does the river run?"},
                      {"role": "assistant", "content": first},
                      {"role": "user", "content": "And <b>then</b>?"}])
        answers = page.locator(".assistant").all_inner_texts()
        self.assertEqual(answers[1].strip(), wanted.choices[0].message.content.strip())
        self.assertEqual(page.locator(".user").last.inner_text(), "And <b>then</b>?")  # text, no HTML
        page.click("#clear")
        self.assertEqual(page.locator(".message").count(), 0)
        self.assertEqual(self.troubles, [])
        self.assertTrue(all(url.startswith(self.server.url) for url in self.requests), self.requests)
        self.assertGreaterEqual(len(self.requests), 6)

    def test_stop(self):
        """In the middle of an answer that others make slow."""
        server = self.start("--slots", 64)
        question, options = "Tell me everything.", {"temperature": 2, "max_tokens": 400}
        seed = next(s for s in range(100)
                    if self.chat(question, seed=s, **options).usage.completion_tokens == 400)
        self.open(server)
        self.page.click("summary")
        for name, value in (("temperature", 2), ("max-tokens", 400), ("seed", seed)):
            self.page.fill(f"#{name}", str(value))
        # Clicked by the page itself as soon as there is something to stop: this model is quick.
        self.page.evaluate("""new MutationObserver(() => {
            if (document.querySelector('.assistant')?.textContent)
              document.getElementById('stop').click();
        }).observe(document.getElementById('chat'), {childList: true, subtree: true})""")
        done = threading.Event()

        def keep_busy():
            client = server.client()
            while not done.is_set():
                self.complete(client=client, n=15, temperature=2, max_tokens=480)

        others = [threading.Thread(target=keep_busy) for _ in range(4)]
        for thread in others:
            thread.start()
        self.assertTrue(eventually(lambda: server.metric("qnpu_slots_used") > 30))
        try:
            for _ in range(10):  # an answer may come whole, in one piece
                self.page.click("#clear")
                self.ask(question)
                self.wait_for_answer()
                if self.page.inner_text("#status") == "stopped":
                    break
            self.assertEqual(self.page.inner_text("#status"), "stopped")
        finally:
            done.set()
            for thread in others:
                thread.join()
        text = self.page.inner_text(".assistant")
        self.assertTrue(eventually(server.is_idle, 3))
        whole = self.chat(question, seed=seed, **options).choices[0].message.content
        self.assertLess(len(text), len(whole.strip()))
        self.assertEqual(self.page.inner_text(".assistant"), text)
        self.assertEqual(self.troubles, [])

    def test_a_key(self):
        server = self.start(QNPU_API_KEY="sesame")
        self.open(server)
        self.page.get_by_text("API key: send it").wait_for()
        self.page.click("summary")
        self.page.fill("#key", "sesame")
        self.page.press("#key", "Tab")
        self.page.get_by_role("heading", name="tiny").wait_for()

    def test_light_and_dark(self):
        colors = {}
        for scheme in ("light", "dark"):
            page = self.open(color_scheme=scheme)
            colors[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            self.assertEqual(self.troubles, [])
        self.assertNotEqual(colors["light"], colors["dark"])


if __name__ == "__main__":
    main()
