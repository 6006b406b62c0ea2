"""Take the pictures of the page that docs/serve.md shows, in Debian's Chromium, of the demo's drawn people.

lookalike demo
lookalike serve --store demo/store
python -m benchmarks.page_pictures [--url http://127.0.0.1:8000] [--photo X.jpg] [--out docs/pictures]
"""

import argparse
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

__all__ = ["main"]

_CHROMIUM = "/usr/bin/chromium"
_WIDE, _PHONE = {"width": 1200, "height": 850}, {"width": 360, "height": 740}


def main() -> None:
    """Ask with a photo, look at a match, and the same on a phone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--photo", type=Path, help="to ask with (default: one of the demo's)")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    photo = args.photo or Path("demo/queries/Vera_Poppy_0007.jpg")
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=arguments)
        with _asked(browser, args.url, photo, viewport=_WIDE, color_scheme="light") as page:
            _keep(page, args.out / "page.webp")
        with _asked(browser, args.url, photo, viewport=_WIDE, color_scheme="dark") as page:
            page.locator("#matches .thumb").first.click()
            page.locator("#shown .box").wait_for()
            _keep(page, args.out / "match.webp")
        phone = {"viewport": _PHONE, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
        with _asked(browser, args.url, photo, **phone) as page:
            page.evaluate(
                "() => scrollTo(0, scrollY + document.querySelector('#asked-face').getBoundingClientRect().top - 12)"
            )
            _keep(page, args.out / "phone.webp")
        browser.close()


@contextmanager
def _asked(browser: Any, url: str, photo: Path, **settings: Any) -> Iterator[Any]:
    """The page in a tab of its own, once the photo is answered."""
    context = browser.new_context(**settings)
    try:
        page = context.new_page()
        page.goto(url)
        page.locator("#about").filter(has_text="faces").wait_for()
        page.set_input_files("#photo", str(photo))
        page.locator("#matches li").first.wait_for()
        yield page
    finally:
        context.close()


def _keep(page: Any, path: Path) -> None:
    """What is seen, once its pictures are there, as WebP."""
    page.evaluate("() => document.activeElement.blur()")
    page.evaluate("() => document.querySelectorAll('.thumb img').forEach((one) => { one.loading = 'eager'; })")
    page.wait_for_function("() => [...document.querySelectorAll('.thumb img')].every((one) => one.naturalWidth > 0)")
    with Image.open(io.BytesIO(page.screenshot(scale="css"))) as shot:
        shot.convert("RGB").save(path, "WEBP", quality=88, method=6)


if __name__ == "__main__":
    main()
