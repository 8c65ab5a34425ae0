"""The browser that the tests of pages use."""

from tests.pages.browser import browser as browser
from tests.pages.browser import chromium as chromium
