"""python -m tests.prepare: everything slow that the tests need, made or fetched once, with progress shown.

Programs and images are kept in the cache folder; what is there is not made again.
"""

from __future__ import annotations

from tests.integration.test_site_changes import OLD_VERSION
from tests.winhost import standin
from vmproxy import binaries, image, lab
from vmproxy.cli import console


def main() -> None:
    standin.main()
    others = ("kube-proxy", OLD_VERSION), ("flanneld", binaries.FLANNEL_VERSION)
    for name, version in (*lab.PROGRAMS.items(), *others):
        binaries.obtain(name, version, report=console.progress)
    for suite in image.SUITES:
        image.build(suite, report=console.progress)
    image.vhdx(image.build("trixie", report=console.progress), compressed=True, report=console.progress)


if __name__ == "__main__":
    main()
