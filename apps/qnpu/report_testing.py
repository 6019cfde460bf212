"""Reports in headless Chromium, for their tests."""

from browser_testing import Browser
from program_testing import FolderCase

SECTIONS = ("summary", "depth", "map", "inputs", "sensitivity", "learning", "operations", "memory",
            "sites", "made")


class BrowserCase(Browser, FolderCase):
    def open(self, path, scheme="light"):
        page = self.browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme=scheme)
        self.addCleanup(page.close)
        self.complaints, self.requests = [], []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn]", timeout=60000)
        self.assertEqual(self.complaints, [])
        self.assertEqual(self.requests, [path.as_uri()])
        return page

    def marks(self, page, section):
        """Of each chart of a section the number of its marks that have an extent."""
        return page.evaluate("""(id) => [...document.querySelectorAll("#" + id + " svg")].map((svg) =>
            [...svg.querySelectorAll(".mark")].filter((mark) => {
              const box = mark.getBBox();
              return box.width > 0 || box.height > 0;
            }).length)""", section)

    def assert_drawn(self, page, charts):
        for section, count in charts.items():
            marks = self.marks(page, section)
            self.assertEqual(len(marks), count, section)
            self.assertTrue(all(marks), (section, marks))

    def texts(self, page, selector):
        return page.locator(selector).all_inner_texts()
