"""Headless Chromium, for tests of pages."""

import shutil

from playwright.sync_api import sync_playwright


class Browser:
    """Beside a TestCase among the bases: one browser for all tests of the class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = playwright.chromium.launch(executable_path=shutil.which("chromium"),
                                                 args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)
