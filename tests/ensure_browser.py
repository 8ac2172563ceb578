"""Makes sure that the tests have a browser: one that is there, else Debian's Chromium when root, else Playwright's own.

`make test` runs it. In CI (the variable CI is set) no browser is a failure; elsewhere the browser tests will skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from find_browser import installed_browser

FROM_DEBIAN = (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
FROM_PLAYWRIGHT = ([sys.executable, "-m", "playwright", "install", "chromium"],)


def install() -> None:
    """Try each way that this user has to install a browser, until there is one."""
    ways = [FROM_PLAYWRIGHT]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ways.insert(0, FROM_DEBIAN)
    for commands in ways:
        for command in commands:
            print("+", " ".join(command), flush=True)
            if subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode:
                break
        if installed_browser():
            return


def main() -> int:
    """Return the exit code: 1 where there is no browser in CI."""
    if not installed_browser():
        install()
    found = installed_browser()
    print(f"browser for the tests: {found or 'none could be installed'}")
    return 1 if not found and os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
