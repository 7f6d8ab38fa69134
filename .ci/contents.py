"""Fails where a wheel lacks a file of the package that git tracks, or a notebook."""

from __future__ import annotations

import subprocess
import sys
import zipfile


def main(wheel: str) -> int:
    """The exit code, 1 with a line for each file that is missing."""
    listed = subprocess.run(["git", "ls-files", "evoae", "notebooks"], capture_output=True)
    pages = ("README.md", "RESULTS.md")  # for those who have the repository
    tracked = [name for name in listed.stdout.decode().splitlines() if not name.endswith(pages)]
    wanted = {name.replace("notebooks/", "evoae/_notebooks/", 1) for name in tracked}
    missing = sorted(wanted - set(zipfile.ZipFile(wheel).namelist()))
    print(f"{wheel}: {len(wanted)} files", *(f"lacks {name}" for name in missing), sep="\n")
    return 1 if missing or not wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
